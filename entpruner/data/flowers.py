"""Oxford's 102 flowers, as they are distributed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from entpruner.data.archives import Entry
from entpruner.data.labelled import Labelled
from entpruner.data.lists import read_mat, whole_numbers
from entpruner.errors import UserError
from entpruner.params.datasets import Flowers


def flowers_splits(dataset: Flowers, _: Sequence[Entry]) -> tuple[dict[str, Labelled], list[str]]:
    """The splits ``train`` and ``test``, each in the order of setid.mat, and the classes, which are numbers.

    Labels are those of imagelabels.mat less one. Raises UserError if a file is damaged or contradicts the other.
    """
    labels_path, splits_path = Path(dataset.labels.file), Path(dataset.splits.file)
    [labels] = read_mat(labels_path.read_bytes(), ["labels"], str(labels_path))
    label_of = dict(enumerate(whole_numbers(labels, f"{labels_path}: labels"), start=1))
    for image, label in label_of.items():
        if not 1 <= label <= dataset.classes:
            raise UserError(f"{labels_path}: image {image} has label {label}, there are 1 to {dataset.classes}")
    found = zip(dataset.lists, read_mat(splits_path.read_bytes(), list(dataset.lists), str(splits_path)), strict=True)
    members = {name: whole_numbers(ids, f"{splits_path}: {name}") for name, ids in found}
    times = Counter(image for ids in members.values() for image in ids)
    if wrong := [image for image in times.keys() | label_of.keys() if times[image] != 1 or image not in label_of]:
        rule = f"each of the {len(label_of)} that {labels_path.name} labels must be in one list, once"
        raise UserError(f"{splits_path}: image {min(wrong)}: {rule}; the two files disagree, get both again")
    splits: dict[str, Labelled] = {
        split: [
            (PurePosixPath(f"image_{image:05}.jpg"), label_of[image] - 1) for name in names for image in members[name]
        ]
        for split, names in (("train", dataset.train), ("test", dataset.test))
    }
    return splits, [str(number) for number in range(1, dataset.classes + 1)]
