"""The data store: what is written is what is read, and a store whose bytes and manifest disagree is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused as in_one_line

from entpruner.data.store import Store, to_uint8
from entpruner.data.writing import write_store
from entpruner.errors import UserError
from entpruner.layout import CHECKSUMS


def some_images(count: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, 2, 4, 4), dtype=np.uint8), random.integers(0, classes, count)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    write_store(path, {"train": some_images(7), "test": some_images(5)}, ["a", "b", "c"], {"source": "made up"})
    return path


def refused(path: Path, *words: str, verify: bool = False) -> None:
    """Opening fails with one line that names the store and holds ``words``, if nobody kept its checksums."""
    (path / CHECKSUMS).unlink(missing_ok=True)
    with in_one_line("", str(path), "prepare the data again", *words):
        Store.open(path, verify)


def edit_manifest(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def test_reads_what_was_written(folder: Path) -> None:
    store = Store.open(folder, verify=True)
    assert store.class_names == ("a", "b", "c") and store.num_classes == 3
    assert store.manifest.count == 12 and store.manifest.shape == (2, 4, 4)
    assert store.manifest.source == {"source": "made up"}
    for name, count in (("train", 7), ("test", 5)):
        split, (images, labels) = store.split(name), some_images(count)
        assert len(split) == count and split.num_classes == 3
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


def test_images_stay_on_disk(folder: Path) -> None:
    images = Store.open(folder).split("test").images
    assert isinstance(images, np.memmap) and not images.flags.writeable


def test_same_input_gives_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    write_store(again, {"train": some_images(7), "test": some_images(5)}, ["a", "b", "c"], {"source": "made up"})
    for file in folder.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes()


def test_batches_make_the_same_store(folder: Path, tmp_path: Path) -> None:
    splits = {"train": some_images(7), "test": some_images(5)}
    batches = {name: ([images[:2], images[2:]], labels) for name, (images, labels) in splits.items()}
    write_store(tmp_path / "again", batches, ["a", "b", "c"], {"source": "made up"})
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_float_images_are_not_cast_to_bytes_and_an_error_leaves_the_earlier_store(folder: Path) -> None:
    before = (folder / "images.npy").read_bytes()
    with pytest.raises(TypeError, match="uint8"):
        write_store(folder, {"train": (np.zeros((2, 1, 4, 4)), np.zeros(2, dtype=np.int64))}, ["a"], {})
    assert (folder / "images.npy").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["store"]


def test_a_batch_is_scaled_to_minus_one_to_one(folder: Path) -> None:
    split = Store.open(folder).split("train")
    x, y = split.batch(torch.tensor([6, 0, 0]))
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    expected = some_images(7)[0][[6, 0, 0]] / 127.5 - 1
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    assert y.tolist() == some_images(7)[1][[6, 0, 0]].tolist()
    torch.testing.assert_close(split.batch(np.array([6, 0, 0]))[0], x, rtol=0, atol=0)


def test_every_byte_survives_the_way_to_floats_and_back(tmp_path: Path) -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    write_store(tmp_path / "store", {"samples": (every, np.zeros(1, dtype=np.int64))}, ["a"], {})
    x, _ = Store.open(tmp_path / "store").split("samples").batch(np.array([0]))
    assert x.min() == -1 and x.max() == 1
    np.testing.assert_array_equal(to_uint8(x).numpy(), every)


@settings(max_examples=200)
@given(st.floats(-3, 3, width=32))
def test_bytes_are_the_truncated_affine_map(value: float) -> None:
    expected = int(min(max(np.float32(127.5) * np.float32(value) + np.float32(128), 0), 255))
    assert to_uint8(torch.tensor(value)).item() == expected


# ---------------------------------------------------------------------------------------------------- damaged stores


def test_no_store(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "no data store here")


def test_unknown_split(folder: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{folder}: no split 'val'; it has ") + "(train|test), "):
        Store.open(folder).split("val")


@pytest.mark.parametrize("file", ["images.npy", "labels.npy", "manifest.json"])
def test_truncated_file(folder: Path, file: str) -> None:
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    refused(folder, file)


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
def test_empty_missing_or_longer_file(folder: Path, file: str) -> None:
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content + b"\0")
    refused(folder, file, f"{len(content) + 1} bytes", str(len(content)))
    (folder / file).write_bytes(b"")
    refused(folder, file)
    (folder / file).unlink()
    refused(folder, file)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 11, "splits": {"train": [0, 11]}}, ("images.npy", "(12, 2, 4, 4)", "(11, 2, 4, 4)")),
        ({"shape": [4, 2, 4]}, ("images.npy", "(12, 2, 4, 4)", "(12, 4, 2, 4)")),
        ({"dtype": "float32"}, ("manifest.json", "dtype")),
        ({"class_names": ["a"]}, ("labels.npy", "for 1 classes")),
        ({"splits": {"train": [0, 8], "test": [7, 12]}}, ("manifest.json", "12 rows")),
        ({"splits": {"train": [0, 7]}}, ("manifest.json", "12 rows")),
        ({"colour": True}, ("manifest.json", "colour")),
    ],
)
def test_manifest_of_another_store(folder: Path, changes: dict[str, object], words: tuple[str, ...]) -> None:
    edit_manifest(folder, **changes)
    refused(folder, *words)


@pytest.mark.parametrize(("file", "byte"), [("images.npy", -3), ("labels.npy", -8), ("manifest.json", 11)])
def test_a_flipped_bit_is_found_by_the_next_command(folder: Path, file: str, byte: int) -> None:
    content = bytearray((folder / file).read_bytes())
    content[byte] ^= 1
    (folder / file).write_bytes(content)
    with in_one_line(folder / file, "has changed since it was written", f"delete {folder} and run the same again"):
        Store.open(folder)


def test_arrays_of_another_type(folder: Path) -> None:
    np.save(folder / "labels.npy", np.zeros(12, dtype=np.int32))
    refused(folder, "labels.npy", "int32", "int64")


def test_a_pickle_is_not_loaded(folder: Path) -> None:
    np.save(folder / "labels.npy", np.array([{}] * 12), allow_pickle=True)
    refused(folder, "labels.npy")


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
def test_changed_bytes_are_found_by_their_hash(folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    if file == "images.npy":
        content[-1] ^= 1
    else:
        content[-16:] = content[-8:] + content[-16:-8]  # two labels swapped: all still in range
        assert content != (folder / file).read_bytes()
    (folder / file).write_bytes(content)
    (folder / CHECKSUMS).unlink()
    Store.open(folder)
    refused(folder, file, "sha256", verify=True)
