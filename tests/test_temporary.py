"""Temporary folders and runs: what a killed process left is found by the next one, and nothing of a living one."""

import asyncio
import os
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import in_a_fork

from entpruner.system.runs import begin_run, unless_disk_is_full, with_inputs_not_of_the_future
from entpruner.system.temporary import make_folder, move_into, move_out, temporary_folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_folder_goes_with_its_block_and_other_users_cannot_read_it(temporary: Path) -> None:
    with temporary_folder() as folder:
        assert folder.parent == temporary and folder.stat().st_mode & 0o777 == 0o700
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_process_is_deleted_by_the_next(temporary: Path) -> None:
    def killed() -> None:
        make_folder()
        kill_self()

    with temporary_folder() as mine:
        for _ in range(2):
            assert in_a_fork(killed) == -signal.SIGKILL
        other = temporary / "entpruner-of-somebody"
        other.mkdir()
        with temporary_folder() as another:
            assert set(temporary.iterdir()) == {mine, another, other}


def test_a_program_that_is_killed_leaves_its_temporary_files_in_a_folder_that_goes(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Snakemake does, which makes a folder before it reads the workflow."""

    def killed() -> None:
        folder, _ = make_folder()
        move_into(folder)
        assert Path(tempfile.mkdtemp()).parent == folder
        kill_self()

    monkeypatch.setenv("TMPDIR", str(temporary))
    assert in_a_fork(killed) == -signal.SIGKILL
    with temporary_folder() as mine:
        assert set(temporary.iterdir()) == {mine}


@pytest.mark.parametrize("before", ["/tmp", None])
def test_what_a_program_starts_has_its_temporary_files_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", before) if before else monkeypatch.delenv("TMPDIR", raising=False)
    environment, where = dict(os.environ), tempfile.gettempdir()
    move_into(tmp_path)
    assert tempfile.gettempdir() == str(tmp_path)
    for _ in range(2):
        move_out()
        assert dict(os.environ) == environment and tempfile.gettempdir() == where


def test_inputs_from_before_the_clock_was_set_back_are_no_younger_than_outputs(tmp_path: Path) -> None:
    old, future, made = (tmp_path / name for name in ("old", "future", "made"))
    for file, later in ((old, -5), (future, 1_000), (made, -1)):
        file.touch()
        os.utime(file, (time.time() + later,) * 2)
    times = [(file.stat().st_mtime_ns) for file in (old, made)]

    async def check(*_: object) -> None:
        assert [file.stat().st_mtime_ns for file in (old, made)] == times
        assert future.stat().st_mtime_ns == made.stat().st_mtime_ns

    job = SimpleNamespace(input=[str(old), str(future), str(tmp_path / "missing")])
    asyncio.run(with_inputs_not_of_the_future(check)(job, [str(made)]))


def test_locks_of_a_killed_run_are_deleted_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    state = tmp_path / ".snakemake"

    def lock() -> None:
        begin_run(state)
        (state / "locks").mkdir(exist_ok=True)
        (state / "locks/0.output.lock").touch()

    def killed() -> None:
        lock()
        kill_self()

    assert in_a_fork(killed) == -signal.SIGKILL
    assert list((state / "locks").iterdir())
    alive = begin_run(state)
    assert alive is not None and not list((state / "locks").iterdir())
    (state / "locks/0.output.lock").touch()
    assert in_a_fork(lambda: begin_run(state)) == 0
    assert [lock.name for lock in (state / "locks").iterdir()] == ["0.output.lock"]
    os.close(alive)


def test_a_folder_that_cannot_be_written_is_left_to_others_to_tell(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert begin_run(tmp_path / "file/.snakemake") is None


@pytest.mark.parametrize(("said", "attempts"), [("entpruner: results/x: the disk is full (…)", 3), ("Killed", 1)])
def test_a_job_that_found_the_disk_full_is_not_tried_again(tmp_path: Path, said: str, attempts: int) -> None:
    log, failed = tmp_path / "log", []
    log.write_text(f"step 5 of 9\n{said}\n")
    job = SimpleNamespace(log=[str(log), str(tmp_path / "missing")], attempt=1, restart_times=2)
    unless_disk_is_full(failed.append)(job)
    assert failed == [job] and job.attempt == attempts  # Snakemake tries again while restart_times > attempt - 1
