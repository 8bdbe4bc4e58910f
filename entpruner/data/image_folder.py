"""A folder or archive of ``<split>/<class>/*.jpg|png`` as a data store."""

from collections import Counter
from pathlib import Path, PurePosixPath

from entpruner.data.archives import Entry, opened
from entpruner.data.images import SUFFIXES
from entpruner.data.labelled import vouched, write_images
from entpruner.errors import UserError
from entpruner.params.datasets import ArtBench, ImageFolder


def prepare_image_folder(dataset: ImageFolder | ArtBench, out: Path, threads: int) -> None:
    """A store of square RGB images with the splits ``train`` and ``test``, each sorted by class and file name.

    Classes are the sorted names of the class folders, the same in both splits. The same images give the same pixels
    and labels, be they in a folder, a .zip or a .tar. Raises UserError, and leaves no store, if the source is missing,
    damaged or of another checksum, if a member would climb out of its archive, if an image can't be read or is there
    twice, or if a split is missing or lacks a class.
    """
    dataset = vouched(dataset)
    path = Path(dataset.file)
    with opened(path, dataset.top) as entries:
        images, class_names = select(entries, dataset)
        label_of = {name: label for label, name in enumerate(class_names)}
        splits = {
            name: [(image, label_of[image.parts[1]]) for image in images if image.parts[0] == folder]
            for name, folder in (("train", dataset.train), ("test", dataset.test))
        }
        write_images(out, path, entries, splits, class_names, dataset.image_size, dataset, threads)


def select(entries: list[Entry], dataset: ImageFolder | ArtBench) -> tuple[list[PurePosixPath], list[str]]:
    """The image files in the store's order, first those of train, and the class names."""
    splits = (dataset.train, dataset.test)
    # hidden files are the litter of editors and systems
    visible = [entry for entry in entries if not any(part.startswith(".") for part in entry.path.parts)]
    folders = {entry.path if entry.read is None else entry.path.parent for entry in visible}
    found = sorted({folder.parts[0] for folder in folders if folder.parts})
    class_names = sorted({folder.parts[1] for folder in folders if folder.parts[1:] and folder.parts[0] in splits})
    images = sorted(
        {
            entry.path
            for entry in visible
            if entry.read is not None
            and len(entry.path.parts) == 3
            and entry.path.parts[0] in splits
            and entry.path.suffix.lower() in SUFFIXES
        },
        key=lambda image: (splits.index(image.parts[0]), image),
    )
    counts = Counter(image.parts[:2] for image in images)
    for split in splits:
        if split not in found:
            holds = ", ".join(map(repr, found[:8])) or "no folders"
            raise UserError(f"{dataset.file}: no split {split!r}, it holds {holds}; set train and test to its folders")
        empty = [name for name in class_names if not counts[split, name]]
        if empty or not class_names:
            what = f"class {empty[0]!r} has no" if empty else "there are no class folders with"
            raise UserError(
                f"{dataset.file}: {what} .jpg or .png images in {split!r}; every class needs some in both splits"
            )
    return images, class_names
