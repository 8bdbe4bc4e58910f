"""Artefacts appear whole or not at all, and an earlier one survives a failure."""

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from refusals import refused
from safetensors import SafetensorError
from safetensors.torch import save_file

from entpruner.layout import CHECKSUMS
from entpruner.system import files
from entpruner.system.files import checksums_in, intact, read_json, sha256_of, whole_file, whole_folder, write_json
from entpruner.system.noting import Written, noted
from entpruner.system.recording import Stopwatch


class Kill(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def content(folder: Path) -> dict[str, str]:
    """The files of a folder without those that hold checksums."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != CHECKSUMS]
    return {str(file.relative_to(folder)): file.read_text() for file in files}


def test_a_folder_appears_when_the_block_ends_and_replaces_all_of_an_earlier_one(tmp_path: Path) -> None:
    target = tmp_path / "deep/model"
    for name in ("first", "second"):
        with whole_folder(target) as folder:
            (folder / "inner").mkdir()
            (folder / "inner" / name).write_text(name)
            assert not (target / "inner" / name).exists()
    assert content(tmp_path) == {"deep/model/inner/second": "second"}


def test_files_may_be_read_by_whoever_may_read_any_new_file(tmp_path: Path) -> None:
    """As colleagues must on a cluster."""
    (tmp_path / "new").touch()
    with whole_folder(tmp_path / "model") as folder, whole_file(tmp_path / "exported.safetensors") as file:
        for path in (folder / "model.safetensors", file):
            save_file({"weights": torch.zeros(2)}, path)
    for name in ("model/model.safetensors", "exported.safetensors"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "new").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, Kill])
@pytest.mark.parametrize(("whole", "inner"), [(whole_folder, "weights"), (whole_file, "")])
def test_after_an_error_nothing_is_left_and_the_earlier_one_stays(
    tmp_path: Path, whole: Callable[[Path], AbstractContextManager[Path]], inner: str, error: type[BaseException]
) -> None:
    def write(text: str, fail: bool) -> None:
        with whole(tmp_path / "model") as path:
            (path / inner).write_text(text)
            if fail:
                raise error

    with pytest.raises(error):
        write("half", fail=True)
    assert list(tmp_path.iterdir()) == []
    write("whole", fail=False)
    with pytest.raises(error):
        write("half", fail=True)
    assert list(content(tmp_path).values()) == ["whole"]


def test_what_a_killed_process_left_does_not_get_into_the_folder(tmp_path: Path) -> None:
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial/litter").touch()
    with whole_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("whole")
    assert content(tmp_path) == {"model/weights": "whole"}


def test_json_is_sorted_ends_its_line_and_comes_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new/a.json", {"b": [1, 0.1], "a": None})
    assert (tmp_path / "new/a.json").read_text() == '{\n "a": null,\n "b": [\n  1,\n  0.1\n ]\n}\n'
    assert read_json(tmp_path / "new/a.json") == {"a": None, "b": [1, 0.1]}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_no_number_and_keeps_the_earlier_file(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "a.json", {"fd": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"fd": value})
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]
    assert read_json(tmp_path / "a.json") == {"fd": 1}


def test_a_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_stopwatch_records_time_and_machine() -> None:
    watch = Stopwatch(torch.device("cpu"))
    first, second = watch.record(), watch.record(steps=3)
    assert 0 <= first["seconds"] <= second["seconds"]
    assert 0 <= first["cpu_seconds"] <= second["cpu_seconds"]
    assert first["peak_memory_mb"] > 10
    assert first["peak_gpu_memory_mb"] == 0
    assert (second["steps"], second["torch"], second["threads"]) == (3, torch.__version__, torch.get_num_threads())


def flip(file: Path, at: int = 0) -> None:
    """Change one bit of a file, and nothing else that a system keeps of it."""
    before, changed = file.stat(), bytearray(file.read_bytes())
    changed[at] ^= 1
    file.write_bytes(changed)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_flipped_bit_is_found_by_whoever_reads_the_file(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with whole_folder(target) as folder:
        (folder / "weights").write_bytes(bytes(1000))
        write_json(folder / "card.json", {"depth": 3})
    (target / "note").touch()  # which somebody else left there
    assert intact(target / "weights") == target / "weights" and read_json(target / "card.json") == {"depth": 3}
    assert intact(target / "note") and intact(target / "nothing") and intact(tmp_path / "elsewhere")
    flip(target / "weights", at=999)
    flip(target / "card.json", at=12)
    for read, name in ((intact, "weights"), (read_json, "card.json")):
        with refused(target / name, "has changed since it was written", f"delete {target} and run the same again"):
            read(target / name)
    (target / CHECKSUMS).write_text("[1")
    with refused(target / CHECKSUMS, "damaged", f"delete the files in {target}"):
        intact(target / "weights")


def test_files_that_are_written_one_by_one_have_checksums_too(tmp_path: Path) -> None:
    arm, places = tmp_path / "arm", [Written(tmp_path / "arm", "*.json"), Written(tmp_path / "arm/final", "*.json")]
    arm.mkdir()
    write_json(arm / "earlier.json", 0)
    with noted(places):
        write_json(arm / "metrics.json", 1)
        (arm / "curve.csv").touch()
        with whole_folder(arm / "final") as folder:
            write_json(folder / "card.json", 3)
    assert set(checksums_in(arm)) == {CHECKSUMS, "metrics.json"}  # nobody knows what earlier.json was
    assert set(checksums_in(arm / "final")) == {"card.json"}
    flip(arm / "metrics.json", at=0)
    with refused(arm / "metrics.json", "has changed since it was written", f"delete {arm}/metrics.json and run"):
        read_json(arm / "metrics.json")
    with noted(places):
        write_json(arm / "metrics.json", 2)
    assert read_json(arm / "metrics.json") == 2


def test_commands_may_note_files_of_a_folder_at_the_same_time(tmp_path: Path) -> None:
    def command(number: int) -> None:
        with noted([Written(tmp_path, f"{number}.json")]):
            write_json(tmp_path / f"{number}.json", number)

    with ThreadPoolExecutor(8) as pool:
        [*pool.map(command, range(100))]
    assert set(checksums_in(tmp_path)) == {path.name for path in tmp_path.iterdir()}


def test_of_a_large_file_pieces_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("LARGE", 100), ("SAMPLES", 5), ("PIECE", 20)):
        monkeypatch.setattr(files, name, value)
    with whole_folder(tmp_path / "store") as folder:
        (folder / "rows").write_bytes(bytes(1001))
    rows = tmp_path / "store/rows"
    assert intact(rows)
    for place in (0, 245, 500, 1000):  # within a piece: of 20 bytes, every 245 bytes
        flip(rows, at=place)
        with refused(rows, "has changed"):
            intact(rows)
        flip(rows, at=place)
    os.truncate(rows, 1000)
    with refused(rows, "has changed"):
        intact(rows)


DISK_FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", DISK_FULL, ids=str)
def test_a_full_disk_is_said_in_one_line_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    with refused(tmp_path, "the disk is full", "make room and run the same again"), whole_folder(tmp_path / "a/model"):
        raise error
    assert list((tmp_path / "a").iterdir()) == []
