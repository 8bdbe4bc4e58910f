"""ImageNet's ILSVRC2012, as it was distributed, as a data store."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from entpruner.data.archives import Entry, archive_entries, folder_entries, opened
from entpruner.data.filling import Listing, write_pictures
from entpruner.data.images import SUFFIXES
from entpruner.data.labelled import require_every_class, require_whole, vouched
from entpruner.data.lists import content_of, lines, read_mat
from entpruner.errors import UserError
from entpruner.params.datasets import ImageNet

META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"

Synsets = dict[str, Callable[[], list[Entry]]]  # for each synset what lists its images; a list of all would be large


def prepare_imagenet(dataset: ImageNet, out: Path, threads: int) -> None:
    """A store of square RGB images: ``train`` by class and file name; ``test`` is ILSVRC's val, in its order.

    Classes are the sorted synsets (n01440764, ...), as the official DiT and SiT number them. Raises UserError, and
    leaves no store, if a part is missing, damaged or of another checksum, if the devkit lacks a file, if train has
    other synsets than the devkit, if the ground truth knows an unknown class or disagrees with val, or if an image is
    missing, there twice, or can't be read.
    """
    dataset = vouched(dataset)
    train, val, size = Path(dataset.train.file), Path(dataset.val.file), dataset.image_size
    wnids, truth = devkit(Path(dataset.devkit.file))
    with synsets(train) as images_of, opened(val) as val_entries:
        if other := sorted(images_of.keys() ^ set(wnids)):
            what = "none of the devkit's" if other[0] in images_of else "missing"
            raise UserError(f"{train}: synset {other[0]!r} is {what}; give the tar or folder of all {len(wnids)}")
        listings, row = [], 0
        for wnid in wnids:
            listings.append(Listing(train, partial(numbered, images_of[wnid], row)))
            row += len(listings[-1])
        val_images = [PurePosixPath(f"ILSVRC2012_val_{number:08}.JPEG") for number in range(1, len(truth) + 1)]
        require_whole(val, val_images, val_entries)
        if unknown := {e.path for e in val_entries if e.path.suffix.lower() in SUFFIXES} - set(val_images):
            raise UserError(f"{val}: image {str(min(unknown))!r} is none of the {len(truth)} that the devkit labels")
        require_every_class(val, {"test": list(zip(val_images, truth, strict=True))}, wnids)
        labels = np.concatenate([np.repeat(np.arange(len(wnids)), list(map(len, listings))), truth])
        row_of = {image: row + i for i, image in enumerate(val_images)}
        listings.append(Listing(val, lambda: [(row_of[e.path], e) for e in val_entries if e.read and e.path in row_of]))
        counts, source = {"train": row, "test": len(truth)}, dataset.model_dump(mode="json")
        write_pictures(out, listings, labels, counts, (3, size, size), wnids, source, threads)


def numbered(listed: Callable[[], list[Entry]], first: int) -> list[tuple[int, Entry]]:
    return list(enumerate(listed(), start=first))


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
def synsets(train: Path) -> Iterator[Synsets]:
    """The synsets of the tar of tars, or of a folder of folders; their images can be listed while the block runs."""
    if train.is_dir():
        folders = [folder for folder in sorted(train.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
        yield {folder.name: partial(images, train, folder.name, partial(folder_entries, folder)) for folder in folders}
        return
    with opened(train) as members:
        archives = [member for member in members if member.path.suffix == ".tar"]
        require_whole(train, {archive.path for archive in archives}, members)
        yield {tar.path.stem: partial(images, train, tar.path.stem, partial(unpacked, train, tar)) for tar in archives}


def unpacked(train: Path, archive: Entry) -> list[Entry]:
    """What the tar of one synset holds; it is read into memory, 148 MB of the original on average."""
    where = f"{train}: {str(archive.path)!r}"
    return archive_entries(Path(archive.path), io.BytesIO(content_of([archive], str(archive.path), str(train))), where)


def images(train: Path, wnid: str, entries: Callable[[], list[Entry]]) -> list[Entry]:
    """The images of one synset by name, with the synset before it. Raises UserError if there are none, or one twice."""
    found = [
        entry._replace(path=PurePosixPath(wnid, entry.path))
        for entry in entries()
        if entry.path.suffix.lower() in SUFFIXES and not entry.path.name.startswith(".")
    ]
    if not found:
        raise UserError(f"{train}: synset {wnid!r} has no images; get the data again")
    require_whole(train, {entry.path for entry in found}, found)
    return sorted(found, key=lambda entry: entry.path)
