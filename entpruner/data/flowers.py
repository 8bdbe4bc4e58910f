"""Oxford's 102 flowers as a data store."""

from collections import Counter
from pathlib import Path, PurePosixPath

from entpruner.data.archives import opened
from entpruner.data.labelled import vouched, write_images
from entpruner.data.lists import read_mat, whole_numbers
from entpruner.errors import UserError
from entpruner.params.datasets import Flowers

SPLITS = ("trnid", "valid", "tstid")


def prepare_flowers(dataset: Flowers, out: Path, threads: int) -> None:
    """A store of square RGB flowers with the splits ``train`` and ``test``, each in the order of setid.mat.

    Labels are those of imagelabels.mat less one; the classes have no names but their numbers. Raises UserError, and
    leaves no store, if a file is missing, damaged or of another checksum, if a label is not 1 to 102, if setid.mat
    does not have every labelled image once, or if an image is missing, there twice, or can't be read.
    """
    dataset = vouched(dataset)
    path, labels_path, splits_path = (Path(part.file) for part in (dataset.images, dataset.labels, dataset.splits))
    [labels] = read_mat(labels_path.read_bytes(), ["labels"], str(labels_path))
    label_of = dict(enumerate(whole_numbers(labels, f"{labels_path}: labels"), start=1))
    for image, label in label_of.items():
        if not 1 <= label <= dataset.classes:
            raise UserError(f"{labels_path}: image {image} has label {label}, there are 1 to {dataset.classes}")
    found = zip(SPLITS, read_mat(splits_path.read_bytes(), SPLITS, str(splits_path)), strict=True)
    members = {name: whole_numbers(ids, f"{splits_path}: {name}") for name, ids in found}
    times = Counter(image for ids in members.values() for image in ids)
    if wrong := [image for image in times.keys() | label_of.keys() if times[image] != 1 or image not in label_of]:
        rule = f"each of the {len(label_of)} that {labels_path.name} labels must be in one list, once"
        raise UserError(f"{splits_path}: image {min(wrong)}: {rule}; the two files disagree, get both again")
    splits = {
        split: [
            (PurePosixPath(f"image_{image:05}.jpg"), label_of[image] - 1) for name in names for image in members[name]
        ]
        for split, names in (("train", dataset.train), ("test", dataset.test))
    }
    with opened(path, top="jpg") as entries:
        class_names = [str(number) for number in range(1, dataset.classes + 1)]
        write_images(out, path, entries, splits, class_names, dataset.image_size, dataset, threads)
