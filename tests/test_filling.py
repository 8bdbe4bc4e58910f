"""A store filled from pictures: the same bytes by any number of threads, after kills, lost writes and full disks."""

import errno
import fcntl
import itertools
import json
import os
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from processes import in_a_fork
from test_data_sources import WRITERS, Files, picture

from entpruner.cli import main
from entpruner.data import filling
from entpruner.data.archives import Entry
from entpruner.data.filling import AHEAD, Picture, decoded
from entpruner.data.images import square
from entpruner.data.rows import RowFile
from entpruner.data.sources import prepare
from entpruner.data.writing import write_store
from entpruner.errors import UserError
from entpruner.params.datasets import ImageFolder

SIZE, BATCH, COUNT = 4, 8, 42  # six batches, the last of two
NAMES = [f"{split}/{name}/{i:02}.jpg" for split in ("train", "val") for name in ("a", "b", "c") for i in range(7)]

every_form = pytest.mark.parametrize("form", WRITERS)
every_number_of_threads = pytest.mark.parametrize("threads", [1, 3])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BATCH", BATCH)


def pictures() -> Files:
    """In another order than the store's, as archives have them."""
    names = random.Random(0).sample(NAMES, COUNT)
    return {name: picture(NAMES.index(name), form="JPEG") for name in names}


def source(place: Path, form: str = "data.zip", files: Files | None = None) -> Path:
    return WRITERS[form](place / form, files or pictures())


def settings(path: Path, size: int = SIZE) -> ImageFolder:
    return ImageFolder(source="image_folder", path=str(path), image_size=size)


def prepared(path: Path, threads: int = 2, **changes: int) -> dict[str, bytes]:
    """The files of the store, which ends up beside ``path`` with nothing else."""
    out = path.parent / "store"
    prepare(settings(path, **changes), out, threads)
    assert sorted(path.parent.iterdir()) == sorted([path, out])
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is decoded from now on; clear it to count anew."""
    seen: list[str] = []

    def count(read: Callable[[], bytes], where: str, shape: tuple[int, int, int]) -> np.ndarray:
        seen.append(where)
        return square(read, where, shape)

    monkeypatch.setattr(filling, "square", count)
    return seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What ``images.npy`` should be: each picture in its row of a store that is written by hand."""
    path, shape = tmp_path_factory.mktemp("whole") / "store", (3, SIZE, SIZE)
    images = np.stack([square(partial(pictures().get, name), name, shape) for name in NAMES])
    write_store(
        path, {"train": (images[:21], np.arange(21) // 7), "test": (images[21:], np.arange(21) // 7)}, "abc", {}
    )
    return (path / "images.npy").read_bytes()


def test_of_pictures_that_wait_only_a_few_are_in_memory() -> None:
    read: list[int] = []

    def listed(i: int) -> Picture:
        return Picture(i, 0, Entry("x", PurePosixPath(f"{i}.jpg"), lambda: read.append(i) or picture(i)))

    with ThreadPoolExecutor(2) as pool:
        coming = decoded(map(listed, range(100)), (3, SIZE, SIZE), pool, 6)
        assert next(coming)[0] == 0
        assert read == list(range(6))
        assert [row for row, _ in coming] == list(range(1, 100))


# ----------------------------------------------------------------------------------------------------- kills and stops


def dying(at: int, number: signal.Signals = signal.SIGKILL) -> Callable[..., np.ndarray]:
    """Decodes, but ends the process by a signal when it is asked for the picture after so many."""
    calls, lock = itertools.count(), threading.Lock()

    def decode(read: Callable[[], bytes], where: str, shape: tuple[int, int, int]) -> np.ndarray:
        with lock:
            if next(calls) == at:
                os.kill(os.getpid(), number)
        return square(read, where, shape)

    return decode


@every_form
@every_number_of_threads
def test_killed_it_goes_on_where_it_was_and_the_bytes_depend_neither_on_that_nor_on_threads_nor_on_batches(
    tmp_path: Path, whole: bytes, counted: list[str], monkeypatch: pytest.MonkeyPatch, form: str, threads: int
) -> None:
    path = source(tmp_path, form)
    with monkeypatch.context() as patch:
        patch.setattr(filling, "square", dying(at=20 + AHEAD * threads))
        assert in_a_fork(lambda: prepared(path, threads)) == -signal.SIGKILL
    assert not (tmp_path / "store").exists()
    found = prepared(path, threads)
    assert found["images.npy"] == whole
    assert len(counted) <= COUNT - 2 * BATCH and len(set(counted)) == len(counted)
    monkeypatch.undo()  # all in one batch
    assert prepared(path, 1) == found


def test_killed_whenever_it_touches_a_file_it_ends_with_the_same_bytes(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's audit events fall before, between and inside writes, renames and deletions."""
    monkeypatch.setattr(filling, "BATCH", COUNT // 2)
    events = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.rmtree")
    code, n = -signal.SIGKILL, 0
    while code:
        n += 1
        place = tmp_path / str(n)
        place.mkdir()
        path = source(place)

        def killed(n: int = n, path: Path = path) -> None:
            seen = itertools.count(1)

            def hook(event: str, _: Any) -> None:
                if event in events and next(seen) == n:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            prepare(settings(path), path.parent / "store")

        code = in_a_fork(killed)
        assert prepared(path)["images.npy"] == whole
    assert n > 30


@every_number_of_threads
def test_asked_to_stop_the_command_ends_after_the_batch_and_goes_on_another_time(
    tmp_path: Path, whole: bytes, counted: list[str], capsys: Any, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    path, before = source(tmp_path), signal.getsignal(signal.SIGTERM)
    given = json.dumps({"dataset": settings(path).model_dump(mode="json")})
    command = ["rule", "data", "--settings", given, "--threads", str(threads), "--out", str(tmp_path / "store")]
    with monkeypatch.context() as patch:
        patch.setattr(filling, "square", dying(at=10, number=signal.SIGTERM))
        assert main(command) == os.EX_TEMPFAIL
    said = re.search(rf"asked to stop, kept (\d+) of {COUNT} images: run the same command", capsys.readouterr().err)
    assert said and int(said[1]) % BATCH == 0 and 0 < int(said[1]) < COUNT
    assert signal.getsignal(signal.SIGTERM) == before
    assert main(command) == 0
    assert (tmp_path / "store/images.npy").read_bytes() == whole
    assert len(counted) == COUNT - int(said[1]) and {file.name for file in tmp_path.iterdir()} == {path.name, "store"}


def test_outside_the_main_thread_it_works_and_heeds_no_signal(tmp_path: Path, whole: bytes) -> None:
    path = source(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(prepared, path).result()["images.npy"] == whole


# ------------------------------------------------------------------------------------- what is kept, and what is not


Broken = KeyboardInterrupt()


def broken_off(path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 3) -> None:
    """Begin, and let the batch after so many fail in its middle."""
    batches, plain = itertools.count(), RowFile.write

    def write(self: RowFile, parts: Iterator[tuple[int, memoryview]]) -> str:
        if next(batches) == after:
            plain(self, itertools.islice(parts, 3))
            raise error
        return plain(self, parts)

    with monkeypatch.context() as patch:
        patch.setattr(RowFile, "write", write)
        with pytest.raises((KeyboardInterrupt, UserError)) as caught:
            prepared(path)
    assert caught.value is Broken or "the disk is full" in str(caught.value), caught.value
    assert not (path.parent / "store").exists()


def test_a_full_disk_loses_nothing(
    tmp_path: Path, whole: bytes, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path)
    broken_off(path, monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    counted.clear()
    assert prepared(path)["images.npy"] == whole
    assert len(counted) == COUNT - 3 * BATCH


def flipped(images: Path) -> None:
    content = images.read_bytes()
    images.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(images: Path) -> None:
    os.truncate(images, 1000)


@pytest.mark.parametrize(("spoil", "again"), [(flipped, COUNT - 5 * BATCH + BATCH), (Path.unlink, COUNT), (cut, None)])
def test_what_was_lost_of_the_written_is_found_and_written_again(
    tmp_path: Path,
    whole: bytes,
    counted: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None],
    again: int | None,
) -> None:
    names = sorted(NAMES, reverse=True)  # so that the last row is in the first batch
    path = source(tmp_path, files={name: pictures()[name] for name in names})
    broken_off(path, monkeypatch, Broken, after=5)
    counted.clear()
    [images] = (tmp_path / "store.resume").glob("*.npy")
    spoil(images)
    assert prepared(path)["images.npy"] == whole
    assert COUNT - 5 * BATCH < len(counted) <= COUNT and again in (None, len(counted))
    assert "not what was written there" in caplog.text


@pytest.mark.parametrize("changed", ["settings", "code", "images"])
def test_nothing_is_kept_for_other_settings_code_or_images(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    path = source(tmp_path)
    broken_off(path, monkeypatch, Broken)
    if changed == "code":
        monkeypatch.setattr(filling, "code_digest", lambda _: "other")
    if changed == "images":
        source(tmp_path, files={name: picture(7, form="JPEG") for name in NAMES})
    size = SIZE + (changed == "settings")
    counted.clear()
    found = prepared(path, size=size)
    assert len(counted) == COUNT
    assert prepared(path, size=size) == found


def test_another_picture_in_a_folder_is_read_again_with_its_batch_alone(
    tmp_path: Path, whole: bytes, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path, "data")
    broken_off(path, monkeypatch, Broken)
    (path / NAMES[3]).write_bytes(picture(99, form="JPEG"))
    counted.clear()
    images = prepared(path)["images.npy"]
    assert len(counted) == COUNT - 2 * BATCH
    row, rows = 3 * SIZE * SIZE, len(whole) - COUNT * 3 * SIZE * SIZE
    differ = {(i - rows) // row for i, (one, other) in enumerate(zip(images, whole, strict=True)) if one != other}
    assert differ == {3}


@every_number_of_threads
@pytest.mark.parametrize("second", ["cannot be decoded", "cannot be read"])
def test_of_several_bad_pictures_the_first_is_named(tmp_path: Path, threads: int, second: str) -> None:
    files = {name: picture(i, form="JPEG") for i, name in enumerate(NAMES)}
    large = picture(0, size=(900, 900), form="JPEG")
    files[NAMES[12]] = large[: len(large) - 9]  # takes longer to be found out than the others
    files[NAMES[13]] = files[NAMES[30]] = b""
    path = source(tmp_path, files=files)
    if second == "cannot be read":
        content = bytearray(path.read_bytes())
        content[content.index(NAMES[14].encode()) + 60] ^= 0xFF
        path.write_bytes(content)
    for _ in range(3):
        with pytest.raises(UserError, match=f"{NAMES[12]}': not a whole JPEG or PNG"):
            prepared(path, threads)


def test_a_second_process_is_turned_away(
    tmp_path: Path, whole: bytes, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path)
    broken_off(path, monkeypatch, Broken)
    counted.clear()
    with (tmp_path / "store.resume/lock").open("a") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"store\.resume: another process is writing this store"):
            prepared(path, size=SIZE + 1)
    assert prepared(path)["images.npy"] == whole
    assert len(counted) == COUNT - 3 * BATCH
