"""Artefacts appear whole or not at all, and an earlier one survives a failure."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from entpruner.system.files import read_json, sha256_of, whole_file, whole_folder, write_json
from entpruner.system.recording import Stopwatch


class Kill(BaseException):
    """Not an Exception, as KeyboardInterrupt is not."""


def content(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


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
