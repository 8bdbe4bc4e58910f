"""ImageNet's ILSVRC2012, as it was distributed, as a data store."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath

from entpruner.data.archives import Entry, archive_entries, folder_entries, opened
from entpruner.data.filling import Picture, batches_of, write_pictures
from entpruner.data.images import SUFFIXES, is_picture
from entpruner.data.labelled import require_every_class, require_whole
from entpruner.data.lists import content_of, lines, read_mat
from entpruner.data.writing import Contents
from entpruner.errors import UserError
from entpruner.params.datasets import ImageNet

META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"


def prepare_imagenet(dataset: ImageNet, out: Path, threads: int) -> None:
    """A store of square RGB images: ``train`` by class and file name; ``test`` is ILSVRC's val, in its order.

    Classes are the sorted synsets (n01440764, ...), as the official DiT and SiT number them. Raises UserError, and
    leaves no store, if a file is missing or damaged, or contradicts another.
    """
    train, val, size = Path(dataset.train.file), Path(dataset.val.file), dataset.image_size
    wnids, truth = devkit(Path(dataset.devkit.file))
    with synsets(train) as images_of, opened(val) as val_entries:
        if other := sorted(images_of.keys() ^ set(wnids)):
            what = "none of the devkit's" if other[0] in images_of else "missing"
            raise UserError(f"{train}: synset {other[0]!r} is {what}; give the tar or folder of all {len(wnids)}")
        val_images = [PurePosixPath(f"ILSVRC2012_val_{number:08}.JPEG") for number in range(1, len(truth) + 1)]
        require_whole(val, val_images, val_entries)
        if unknown := {e.path for e in val_entries if e.path.suffix.lower() in SUFFIXES} - set(val_images):
            raise UserError(f"{val}: image {str(min(unknown))!r} is none of the {len(truth)} that the devkit labels")
        require_every_class(val, {"test": list(zip(val_images, truth, strict=True))}, wnids)

        @lru_cache(maxsize=1)  # a list of the images of all synsets would be large
        def listed(label: int, first: int) -> list[Picture]:
            return [Picture(row, label, entry) for row, entry in enumerate(images_of[wnids[label]](), start=first)]

        batches, rows = [], 0
        for label in range(len(wnids)):
            batches += batches_of(partial(listed, label, rows))
            rows = 1 + int(batches[-1].rows[-1])
        number_of = {image: number for number, image in enumerate(val_images)}
        in_val = [(number_of[entry.path], entry) for entry in val_entries if entry.path in number_of]
        pictures = [Picture(rows + number, truth[number], entry) for number, entry in in_val]
        batches += batches_of(lambda: pictures)
        counts, source = {"train": rows, "test": len(truth)}, dataset.model_dump(mode="json")
        write_pictures(out, batches, Contents(counts, (3, size, size), wnids, source), threads)


def devkit(path: Path) -> tuple[list[str], list[int]]:
    """ILSVRC2012_devkit_t12: the synsets that are classes, in the order of labels, and the label of each val image."""
    with opened(path, top="ILSVRC2012_devkit_t12") as entries:
        [table] = read_mat(content_of(entries, META, str(path)), ["synsets"], f"{path}: {META}")
        truth = list(lines(content_of(entries, TRUTH, str(path)), f"{path}: {TRUTH}"))
    try:  # synsets above the classes in WordNet's tree have children
        wnid_of = {str(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in table if row["num_children"] == 0}
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: {META}: not ILSVRC2012's table of synsets ({error}); get the file again") from error
    wnids = sorted(wnid_of.values())
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    for place, line in truth:
        if line.strip() not in wnid_of:
            raise UserError(f"{place}: label {line.strip()[:20]} is none of the {len(wnids)} of {META}")
    return wnids, [label_of[wnid_of[line.strip()]] for _, line in truth]


@contextmanager
def synsets(train: Path) -> Iterator[dict[str, Callable[[], list[Entry]]]]:
    """For each synset in the tar of tars, or in a folder of folders, what lists its images while the block runs."""
    if train.is_dir():
        folders = [folder for folder in sorted(train.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
        files = {folder.name: partial(folder_entries, folder, str(train)) for folder in folders}
        yield {wnid: partial(images, train, wnid, listed) for wnid, listed in files.items()}
        return
    with opened(train) as members:
        archives = [member for member in members if member.path.suffix == ".tar"]
        require_whole(train, {archive.path for archive in archives}, members)
        yield {tar.path.stem: partial(images, train, tar.path.stem, partial(unpacked, tar)) for tar in archives}


def unpacked(archive: Entry) -> list[Entry]:
    """What the tar of one synset holds; it is read into memory, 148 MB of the original on average."""
    content = io.BytesIO(content_of([archive], str(archive.path), archive.where))
    return archive_entries(Path(archive.path), content, archive.name)


def images(train: Path, wnid: str, listed: Callable[[], list[Entry]]) -> list[Entry]:
    """The images of one synset by name, with the synset before it. Raises UserError if there are none, or one twice."""
    found = [
        entry._replace(where=str(train), path=PurePosixPath(wnid, entry.path)) for entry in filter(is_picture, listed())
    ]
    if not found:
        raise UserError(f"{train}: synset {wnid!r} has no images; get the data again")
    require_whole(train, {entry.path for entry in found}, found)
    return sorted(found, key=lambda entry: entry.path)
