"""Data sets in the very form in which they are distributed, made tiny: ImageNet, CUB, Flowers and ArtBench."""

import gzip
import hashlib
import io
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from test_data_sources import Files, refused_in, tar, write_folder
from test_data_sources import picture as random_picture

from entpruner.data import filling
from entpruner.data import imagenet as imagenet_source
from entpruner.data.archives import Entry
from entpruner.data.images import centre_crop, square
from entpruner.data.lists import read_mat, whole_numbers
from entpruner.data.sources import prepare
from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.params.datasets import ArtBench, Cub, Flowers, ImageFolder, ImageNet
from entpruner.study.images import images_of

Maker = Callable[..., dict[str, Any]]  # (folder, ...) → the settings of a data set whose files it has made there


picture = cache(partial(random_picture, size=(6, 5), form="JPEG"))


def stored(content: bytes) -> np.ndarray:
    """What a store should hold of an image, (3, 4, 4)."""
    return np.asarray(centre_crop(Image.open(io.BytesIO(content)).convert("RGB"), 4)).transpose(2, 0, 1)


def put(path: Path, files: Files, more: tuple[tuple[str, bytes], ...] = ()) -> Path:
    """Files in a folder, or packed as the suffix says; ``more`` are further members of an archive, even twice."""
    if not path.suffix:
        return write_folder(path, files)
    content = tar([*files.items(), *more])
    path.write_bytes(content if path.suffix == ".tar" else gzip.compress(content, mtime=0))
    return path


def mat(**variables: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=True)
    return buffer.getvalue()


# ----------------------------------------------------------------------------------------- the four, in original form

CUB_NAMES = ["001.Black_footed_Albatross", "002.Laysan_Albatross"]
CUB_IMAGES = [f"{name}/{name[4:]}_{i:04}_{796100 + i}.jpg" for name in CUB_NAMES for i in range(3)]


def cub_files() -> Files:
    """Image 3 and 6 are in test."""

    def listed(values: list[Any]) -> bytes:
        return "".join(f"{number} {value}\n" for number, value in enumerate(values, start=1)).encode()

    return {
        "CUB_200_2011/README": b"Caltech-UCSD Birds-200-2011",
        "CUB_200_2011/images.txt": listed(CUB_IMAGES),
        "CUB_200_2011/image_class_labels.txt": listed([1, 1, 1, 2, 2, 2]),
        "CUB_200_2011/train_test_split.txt": listed([1, 1, 0, 1, 1, 0]),
        "CUB_200_2011/classes.txt": listed(CUB_NAMES),
        "CUB_200_2011/parts/part_locs.txt": b"1 1 0.0 0.0 0\n",
        "attributes.txt": b"1 has_bill_shape::curved_(up_or_down)\n",
        # in another order than in images.txt, as tar finds them on a disk
        **{f"CUB_200_2011/images/{name}": picture(i) for i, name in reversed(list(enumerate(CUB_IMAGES)))},
    }


def cub(place: Path, name: str = "CUB_200_2011.tgz", files: Files | None = None, more: Any = ()) -> dict[str, Any]:
    return {"source": "cub", "image_size": 4, "path": str(put(place / name, files or cub_files(), more))}


def flower_files() -> Files:
    return {f"jpg/image_{i:05}.jpg": picture(i) for i in range(1, 205)}


FLOWER_LABELS = [1 + i % 102 for i in range(204)]  # of image 1, 2, ...
FLOWER_SPLITS = {"trnid": range(1, 61), "valid": range(61, 103), "tstid": range(204, 102, -1)}


def flowers(
    place: Path,
    name: str = "102flowers.tgz",
    files: Files | None = None,
    labels: Any = FLOWER_LABELS,
    splits: dict[str, Any] = FLOWER_SPLITS,
    more: Any = (),
) -> dict[str, Any]:
    sets = {key: np.array(ids, dtype=np.uint16)[None] for key, ids in splits.items()}
    (place / "imagelabels.mat").write_bytes(mat(labels=np.array(labels)[None]))
    (place / "setid.mat").write_bytes(mat(**sets))
    return {
        "source": "flowers",
        "image_size": 4,
        "images": {"path": str(put(place / name, files or flower_files(), more))},
        "labels": {"path": str(place / "imagelabels.mat")},
        "splits": {"path": str(place / "setid.mat")},
    }


def artbench(
    place: Path, name: str = "artbench-10-imagefolder-split.tar", files: Files | None = None
) -> dict[str, Any]:
    return {"source": "artbench", "image_size": 4, "path": str(put(place / name, files or artbench_files()))}


def artbench_files() -> Files:
    styles = ["ukiyo_e", "art_nouveau"]
    names = [f"{split}/{style}/a-b_{i}.jpg" for split in ("train", "test") for style in styles for i in range(2)]
    return {f"artbench-10-imagefolder-split/{name}": picture(i) for i, name in enumerate(names)}


WNIDS = ["n01440764", "n01443537", "n02105855"]
VAL_LABELS = [3, 1, 2, 3]  # ILSVRC2012_ID of the validation images
WNID_OF = {1: "n02105855", 2: "n01440764", 3: "n01443537"}  # ILSVRC numbers its synsets in another order than by name


def meta(**changes: Any) -> bytes:
    """A table as in the devkit: the synsets that are classes, then one above them in WordNet's tree."""
    rows = [(i, wnid, "a fish", "any fish", 0, [], 0, 2) for i, wnid in WNID_OF.items()]
    rows.append((4, "n00001740", "entity", "that which is", 3, [1, 2, 3], 9, 0))
    names = [
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    ]
    table = np.empty((len(rows), 1), dtype=[(name, object) for name in names])
    for place, row in enumerate(rows):
        table[place, 0] = tuple(row)
    return mat(synsets=table, **changes)


def devkit_files() -> Files:
    truth = "".join(f"{label}\n" for label in VAL_LABELS).encode()
    return {
        "ILSVRC2012_devkit_t12/readme.txt": b"ILSVRC2012",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": truth,
    }


def train_files() -> Files:
    return {f"{wnid}/{wnid}_{i}.JPEG": picture(10 * n + i) for n, wnid in enumerate(WNIDS) for i in (1000, 9, 18)}


def val_files() -> Files:
    return {f"ILSVRC2012_val_{i:08}.JPEG": picture(i) for i in range(1, 5)}


def tar_of_tars(files: Files) -> Files:
    return {
        f"{wnid}.tar": tar([(n.split("/")[1], c) for n, c in files.items() if n.startswith(wnid)]) for wnid in WNIDS
    }


def imagenet(
    place: Path,
    train: str = "ILSVRC2012_img_train.tar",
    val: str = "ILSVRC2012_img_val.tar",
    devkit: str = "ILSVRC2012_devkit_t12.tar.gz",
    more: Any = (),
    **files: Files,
) -> dict[str, Any]:
    in_train = files.get("in_train") or (tar_of_tars(train_files()) if train.endswith("tar") else train_files())
    return {
        "source": "imagenet",
        "image_size": 4,
        "train": {"path": str(put(place / train, in_train, more))},
        "val": {"path": str(put(place / val, files.get("in_val", val_files())))},
        "devkit": {"path": str(put(place / devkit, files.get("in_devkit", devkit_files())))},
    }


SOURCES = {"cub": Cub, "flowers": Flowers, "artbench": ArtBench, "imagenet": ImageNet}


def prepared(given: dict[str, Any], place: Path) -> Store:
    prepare(SOURCES[given["source"]](**given), place / "store")
    return Store.open(place / "store", verify=True)


def refused(given: dict[str, Any], place: Path, *words: str) -> None:
    refused_in(place, lambda: prepared(given, place), str(place), *words)


def without(files: Files, *names: str) -> Files:
    assert set(names) <= files.keys()
    return {name: content for name, content in files.items() if name not in names}


# --------------------------------------------------------------------------------------------- what the stores hold


@pytest.mark.parametrize("name", ["CUB_200_2011.tgz", "CUB_200_2011.tar", "birds"])
def test_cub(tmp_path: Path, name: str) -> None:
    store = prepared(cub(tmp_path, name), tmp_path)
    assert store.class_names == tuple(CUB_NAMES)
    train, test = store.split("train"), store.split("test")
    assert train.labels.tolist() == [0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    for row, image in zip([*train.images, *test.images], [0, 1, 3, 4, 2, 5], strict=True):
        np.testing.assert_array_equal(row, stored(picture(image)))


def test_cub_s_own_folder_may_be_given(tmp_path: Path) -> None:
    given = cub(tmp_path, "birds")
    assert prepared({**given, "path": given["path"] + "/CUB_200_2011"}, tmp_path).manifest.count == 6


@pytest.mark.parametrize("name", ["102flowers.tgz", "102flowers.tar.gz", "flowers"])
def test_flowers(tmp_path: Path, name: str) -> None:
    store = prepared(flowers(tmp_path, name), tmp_path)
    assert store.class_names == tuple(map(str, range(1, 103)))
    train, test = store.split("train"), store.split("test")
    assert train.labels.tolist() == list(range(102)) and test.labels.tolist() == list(range(101, -1, -1))
    for row, image in zip([*train.images, *test.images], [*range(1, 103), *range(204, 102, -1)], strict=True):
        np.testing.assert_array_equal(row, stored(picture(image)))


def test_flowers_splits_are_chosen(tmp_path: Path) -> None:
    given = flowers(tmp_path) | {"train": ["tstid"], "test": ["valid", "trnid"]}
    store = prepared(given, tmp_path)
    np.testing.assert_array_equal(store.split("train").images[0], stored(picture(204)))
    np.testing.assert_array_equal(store.split("test").images[0], stored(picture(61)))
    with pytest.raises(ValueError, match="other lists than train"):
        Flowers(**(given | {"test": ["tstid"]}))


@pytest.mark.parametrize("name", ["artbench-10-imagefolder-split.tar", "art"])
def test_artbench(tmp_path: Path, name: str) -> None:
    files, store = artbench_files(), prepared(artbench(tmp_path, name), tmp_path)
    assert store.class_names == ("art_nouveau", "ukiyo_e")
    assert store.split("train").labels.tolist() == [0, 0, 1, 1] == store.split("test").labels.tolist()
    for row, image in zip(store.split("train").images, [2, 3, 0, 1], strict=True):
        np.testing.assert_array_equal(row, stored(list(files.values())[image]))


@pytest.mark.parametrize("form", [("train.tar", "val.tar", "devkit.tar.gz"), ("train", "val", "devkit")])
def test_imagenet(tmp_path: Path, form: tuple[str, str, str]) -> None:
    store = prepared(imagenet(tmp_path, *form), tmp_path)
    assert store.class_names == tuple(WNIDS)
    train, test = store.split("train"), store.split("test")
    assert train.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert test.labels.tolist() == [WNIDS.index(WNID_OF[label]) for label in VAL_LABELS] == [1, 2, 0, 1]
    by_name = sorted(train_files().items())  # n01440764_1000 before n01440764_18, as in the extracted folder
    for row, content in zip(
        [*train.images, *test.images], [c for _, c in by_name] + list(val_files().values()), strict=True
    ):
        np.testing.assert_array_equal(row, stored(content))


def test_imagenet_has_the_rows_of_the_same_images_in_an_image_folder(tmp_path: Path) -> None:
    """Checkpoints that were trained on such a folder number the classes by it."""
    store = prepared(imagenet(tmp_path), tmp_path)
    val = {f"val/{WNID_OF[label]}/{name}": c for label, (name, c) in zip(VAL_LABELS, val_files().items(), strict=True)}
    put(tmp_path / "sorted", {**{f"train/{name}": content for name, content in train_files().items()}, **val})
    folder = ImageFolder(source="image_folder", path=str(tmp_path / "sorted"), image_size=4)
    prepare(folder, tmp_path / "other")
    other = Store.open(tmp_path / "other")
    assert other.class_names == store.class_names
    for name in ("images", "labels"):
        mine, theirs = (getattr(each.split("train"), name) for each in (store, other))
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("make", [cub, flowers, artbench, imagenet])
def test_the_same_data_give_the_same_bytes_and_the_manifest_knows_each_file(tmp_path: Path, make: Maker) -> None:
    given = make(tmp_path)
    once = {file.name: file.read_bytes() for file in prepared(given, tmp_path).path.iterdir()}
    store = prepared(given, tmp_path)
    assert once == {file.name: file.read_bytes() for file in store.path.iterdir()}
    for part in [given, *given.values()]:
        if isinstance(part, dict) and "path" in part:
            checksum = hashlib.sha256(Path(part["path"]).read_bytes()).hexdigest()
            assert f'"sha256": "{checksum}"' in once["manifest.json"].decode()


def test_a_plan_knows_them_before_they_are_here() -> None:
    nowhere, size = {"path": "nowhere"}, {"image_size": 256}
    parts = {"images": nowhere, "labels": nowhere, "splits": nowhere}
    assert images_of(Flowers(source="flowers", **parts, **size)) == (2_040, 6_149, 102, None)
    assert images_of(Cub(source="cub", **nowhere, **size)).total == 11_788
    assert images_of(ArtBench(source="artbench", **nowhere, **size)).total == 60_000
    imagenet = ImageNet(source="imagenet", train=nowhere, val=nowhere, devkit=nowhere, **size)
    assert images_of(imagenet) == (1_281_167, 50_000, 1000, None)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("make", [cub, flowers, artbench, imagenet])
def test_a_missing_file_and_a_wrong_checksum(tmp_path: Path, make: Maker) -> None:
    given = make(tmp_path)
    for key, part in given.items():
        if isinstance(part, dict):
            refused({**given, key: {"path": str(tmp_path / "nowhere.tar")}}, tmp_path, "no such file")
            refused({**given, key: {**part, "sha256": "0" * 64}}, tmp_path, "0" * 64, part["path"])
    if "path" in given:
        refused({**given, "path": str(tmp_path / "nowhere.tar")}, tmp_path, "no such file")
        refused({**given, "sha256": "0" * 64}, tmp_path, "0" * 64)


@pytest.mark.parametrize("name", ["images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt"])
@pytest.mark.parametrize("form", ["CUB_200_2011.tgz", "birds"])
def test_cub_without_one_of_its_lists(tmp_path: Path, form: str, name: str) -> None:
    refused(cub(tmp_path, form, without(cub_files(), f"CUB_200_2011/{name}")), tmp_path, f"no {name} in it")


@pytest.mark.parametrize(
    ("name", "line", "other", "words"),
    [
        ("image_class_labels.txt", b"6 2\n", b"6 3\n", ("image 6 has label 3", "1 to 2")),
        ("image_class_labels.txt", b"1 1\n", b"1 0\n", ("image 1 has label 0", "1 to 2")),
        ("image_class_labels.txt", b"1 1\n", b"1 one\n", ("image 1 has label one",)),
        ("image_class_labels.txt", b"6 2\n", b"", ("image_class_labels.txt: it disagrees", "image 6 is not in")),
        ("train_test_split.txt", b"6 0\n", b"", ("train_test_split.txt: it disagrees", "image 6 is not in train_test")),
        ("train_test_split.txt", b"6 0\n", b"6 0\n7 1\n", ("disagrees with images", "image 7 is not in images.txt")),
        ("train_test_split.txt", b"6 0\n", b"6 2\n", ("image 6 has 2, not 1 (train) or 0 (test)",)),
        ("train_test_split.txt", b"6 0\n", b"6 1\n", ("'002.Laysan_Albatross' has no images in test",)),
        ("train_test_split.txt", b"6 0\n", b"5 0\n", ("line 6", "number 5 is listed twice")),
        ("train_test_split.txt", b"6 0\n", b"6\n", ("line 6", "'6' is not a number and what it stands for")),
        ("classes.txt", b"2 002", b"3 002", ("not numbered 1, 2, ...",)),
        ("classes.txt", b"2 002", b"\xff\xfe 002", ("classes.txt: not a text file",)),
        ("images.txt", b"2 001.Black_footed_Albatross/Black_footed_Albatross_0001_796101",
         b"2 001.Black_footed_Albatross/Black_footed_Albatross_0000_796100", ("0000_796100.jpg' is listed twice",)),
        ("images.txt", b"Black_footed_Albatross_0001", b"Black_footed_Albatross_0009",
         ("0009_796101.jpg' is listed, but not there",)),
        ("images.txt", b"001.Black_footed_Albatross/Black_footed_Albatross_0001", b"../../../x", ("not there",)),
    ],
)  # fmt: skip
def test_cub_lists_that_contradict_each_other(
    tmp_path: Path, name: str, line: bytes, other: bytes, words: tuple[str, ...]
) -> None:
    files = cub_files()
    assert files[f"CUB_200_2011/{name}"].count(line) == 1
    files[f"CUB_200_2011/{name}"] = files[f"CUB_200_2011/{name}"].replace(line, other)
    refused(cub(tmp_path, files=files), tmp_path, *words)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([*FLOWER_LABELS[:-1], 103], ("imagelabels.mat: image 204 has label 103", "1 to 102")),
        ([0, *FLOWER_LABELS[1:]], ("imagelabels.mat: image 1 has label 0",)),
        ([1.5, *FLOWER_LABELS[1:]], ("imagelabels.mat: labels: not a list of whole numbers",)),
        ([np.nan, *FLOWER_LABELS[1:]], ("not a list of whole numbers",)),
        (["rose", "lily"], ("not a list of whole numbers",)),
        (FLOWER_LABELS[:-1], ("setid.mat: image 204: each of the 203 that imagelabels.mat labels", "disagree")),
        ([*FLOWER_LABELS, 1], ("setid.mat: image 205: each of the 205",)),
        ([2, *FLOWER_LABELS[1:]], ("class '1' has no images in train",)),
    ],
)
def test_flowers_with_other_labels(tmp_path: Path, labels: list[Any], words: tuple[str, ...]) -> None:
    refused(flowers(tmp_path, labels=labels), tmp_path, *words)


def test_flowers_splits_that_disagree_with_the_labels(tmp_path: Path) -> None:
    twice = FLOWER_SPLITS | {"valid": [*range(61, 103), 60]}
    refused(flowers(tmp_path, splits=twice), tmp_path, "setid.mat: image 60: each of the 204", "once", "disagree")
    refused(flowers(tmp_path, splits=without(FLOWER_SPLITS, "valid")), tmp_path, "setid.mat: no variable valid in it")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 50, b"\x89HDF\r\n\x1a\n" + bytes(600)])
@pytest.mark.parametrize("part", ["labels", "splits"])
def test_a_mat_that_is_none(tmp_path: Path, part: str, content: bytes) -> None:
    given = flowers(tmp_path)
    Path(given[part]["path"]).write_bytes(content)
    refused(given, tmp_path, given[part]["path"], "not a whole .mat file")


MATS = [("meta.mat", "synsets", meta()), ("setid.mat", "trnid", mat(trnid=np.arange(9, dtype=np.uint16)[None]))]


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_mat_is_read_or_refused_in_one_line(data: st.DataObject) -> None:
    where, variable, whole = data.draw(st.sampled_from(MATS))
    content = bytearray(whole)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        [found] = read_mat(bytes(content), [variable], where)
        whole_numbers(found, where)
    except UserError as error:
        assert str(error).startswith(where) and "\n" not in str(error)


@pytest.mark.parametrize("name", ["data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"])
def test_a_devkit_without_one_of_its_files(tmp_path: Path, name: str) -> None:
    files = without(devkit_files(), f"ILSVRC2012_devkit_t12/{name}")
    refused(imagenet(tmp_path, in_devkit=files), tmp_path, f"no {name} in it")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ILSVRC2012_validation_ground_truth.txt", b"3\n1\n4\n3\n", ("truth.txt, line 3: label 4 is none of the 3",)),
        ("ILSVRC2012_validation_ground_truth.txt", b"3\n1\n-2\n3\n", ("line 3: label -2",)),
        ("ILSVRC2012_validation_ground_truth.txt", b"3\n1\n2\n", ("val_00000004.JPEG' is none of the 3",)),
        ("ILSVRC2012_validation_ground_truth.txt", b"3\n1\n2\n3\n3\n", ("00005.JPEG' is listed, but not there",)),
        ("ILSVRC2012_validation_ground_truth.txt", b"3\n1\n1\n3\n", ("class 'n01440764' has no images in test",)),
        ("meta.mat", b"MATLAB 5.0", ("meta.mat: not a whole .mat file",)),
        ("meta.mat", mat(synsets=np.eye(3)), ("meta.mat: not ILSVRC2012's table of synsets",)),
        ("meta.mat", mat(other=1), ("meta.mat: no variable synsets",)),
    ],
)
def test_a_devkit_that_disagrees(tmp_path: Path, name: str, content: bytes, words: tuple[str, ...]) -> None:
    files = devkit_files() | {f"ILSVRC2012_devkit_t12/data/{name}": content}
    refused(imagenet(tmp_path, in_devkit=files), tmp_path, *words)


@pytest.mark.parametrize("form", ["train.tar", "train"])
def test_imagenet_with_other_synsets(tmp_path: Path, form: str) -> None:
    files = {name: content for name, content in train_files().items() if not name.startswith(WNIDS[1])}
    given = tar_of_tars(train_files()) if form == "train.tar" else files
    given = without(given, f"{WNIDS[1]}.tar") if form == "train.tar" else given
    refused(imagenet(tmp_path, form, in_train=given), tmp_path, f"synset {WNIDS[1]!r} is missing", "all 3")
    (tmp_path / "more").mkdir()
    other = {"n09999999.tar": tar([("n09999999_1.JPEG", picture(0))]), "n09999999/n09999999_1.JPEG": picture(0)}
    given = (tar_of_tars if form == "train.tar" else dict)(train_files()) | other
    refused(imagenet(tmp_path / "more", form, in_train=given), tmp_path / "more", "'n09999999' is none of the devkit's")


def test_an_empty_synset(tmp_path: Path) -> None:
    files = tar_of_tars(train_files()) | {f"{WNIDS[2]}.tar": tar([("readme.txt", b"")])}
    refused(imagenet(tmp_path, in_train=files), tmp_path, f"synset {WNIDS[2]!r} has no images")


@pytest.mark.parametrize(
    ("make", "twice"),
    [(cub, f"CUB_200_2011/images/{CUB_IMAGES[1]}"), (flowers, "jpg/image_00007.jpg"), (imagenet, f"{WNIDS[0]}.tar")],
)
def test_an_image_that_is_there_twice(tmp_path: Path, make: Maker, twice: str) -> None:
    refused(make(tmp_path, more=((twice, picture(0)),)), tmp_path, f"{Path(twice).name}' is there twice")


def test_an_image_that_is_twice_in_its_synset(tmp_path: Path) -> None:
    synset = tar([(f"{WNIDS[0]}_1.JPEG", picture(0)), (f"{WNIDS[0]}_1.JPEG", picture(1))])
    files = tar_of_tars(train_files()) | {f"{WNIDS[0]}.tar": synset}
    refused(imagenet(tmp_path, in_train=files), tmp_path, f"'{WNIDS[0]}/{WNIDS[0]}_1.JPEG' is there twice")


@pytest.mark.parametrize("make", [cub, flowers, imagenet])
def test_a_member_that_climbs_out(tmp_path: Path, make: Maker) -> None:
    refused(make(tmp_path, more=(("CUB_200_2011/../../x.jpg", b""),)), tmp_path, "../x.jpg'", "climbs out")


def test_a_member_that_climbs_out_of_a_synset(tmp_path: Path) -> None:
    files = tar_of_tars(train_files()) | {f"{WNIDS[0]}.tar": tar([("../x.JPEG", picture(0))])}
    refused(imagenet(tmp_path, in_train=files), tmp_path, f"'{WNIDS[0]}.tar': '../x.JPEG'", "climbs out")


def test_a_cut_synset(tmp_path: Path) -> None:
    whole = tar_of_tars(train_files())
    files = whole | {f"{WNIDS[1]}.tar": whole[f"{WNIDS[1]}.tar"][:1024]}
    refused(imagenet(tmp_path, in_train=files), tmp_path, f"'{WNIDS[1]}.tar': truncated or damaged archive")


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    files = train_files() | {f"{WNIDS[1]}/{WNIDS[1]}_9.JPEG": picture(0)[:200]}
    given = imagenet(tmp_path, in_train=tar_of_tars(files))
    with pytest.raises(UserError, match=f"'{WNIDS[1]}/{WNIDS[1]}_9.JPEG': not a whole JPEG"):
        prepared(given, tmp_path)
    assert not (tmp_path / "store").exists()
    assert (tmp_path / "store.resume").exists()  # the synset before it is done


def test_imagenet_broken_off_goes_on_within_its_synset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BATCH", 2)
    given, unpacked, plain = imagenet(tmp_path), [], imagenet_source.unpacked
    decoded: list[str] = []
    last = f"{WNIDS[1]}_9.JPEG"  # by name, and alone in the second of its synset's batches

    def unpack(archive: Entry) -> list[Entry]:
        unpacked.append(archive.path.stem)
        return plain(archive)

    def decode(read: Callable[[], bytes], where: str, shape: tuple[int, int, int]) -> np.ndarray:
        decoded.append(where)
        return square(read, where, shape)

    def break_off(read: Callable[[], bytes], where: str, shape: tuple[int, int, int]) -> np.ndarray:
        if last in where:
            raise KeyboardInterrupt
        return square(read, where, shape)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(filling, "square", break_off)
        prepared(given, tmp_path)
    monkeypatch.setattr(imagenet_source, "unpacked", unpack)
    monkeypatch.setattr(filling, "square", decode)
    store = prepared(given, tmp_path)
    assert len(decoded) == 1 + 3 + len(VAL_LABELS) and last in decoded[0]
    assert unpacked == [*WNIDS, *WNIDS[1:]]  # each is listed, and the first, which is done, not read again
    monkeypatch.undo()
    files = {file.name: file.read_bytes() for file in store.path.iterdir()}
    assert files == {file.name: file.read_bytes() for file in prepared(given, tmp_path).path.iterdir()}


def test_a_disk_without_room_is_told_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    refused(cub(tmp_path), tmp_path, "make room")
