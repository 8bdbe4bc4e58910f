"""Checkpoints from which a killed run goes on: ``<folder>/step-<step>/``, which is always complete.

A checkpoint has ``run.json``, and its tensors in ``state-00001-of-0000N.safetensors`` and so on. A process that holds
the whole state writes it to one file. N processes that hold some rows of every tensor each write their rows to a file
of their own, and the rows of a tensor follow one another in these files. Any number of processes can go on from either.

torch.distributed.checkpoint is not used, because it unpickles, which can run code: its FileSystemReader loads the file
``.metadata`` with pickle.load, and every save and load sends plans between the processes as pickles, also where the
files are safetensors (HuggingFaceStorageWriter).
"""

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from typing_extensions import TypedDict  # before Python 3.12, pydantic needs this one

from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.system import parallel
from entpruner.system.files import intact, read_json, sync, whole_folder, write_json
from entpruner.training.reading import Reading
from entpruner.training.sharing import local, rows_of
from entpruner.training.state import TrainState

log = logging.getLogger(__name__)


class CurvePoint(TypedDict):
    """A point of the training curve. Loss and speed are means over the steps since the last point."""

    step: int
    """The number of steps of the whole run that are done."""
    loss: float
    lr: float
    images_per_second: float
    blocks: int


class Record(Frozen):
    """What ``run.json`` says."""

    fingerprint: str
    files: int = Field(gt=0, le=65_536)
    """The number of files that hold the tensors."""
    step: int
    curve: list[CurvePoint]
    recent: list[float]
    readings: list[Reading]


@dataclass
class Run:
    """The state and the curve of a run: all that its further steps depend on."""

    state: TrainState
    curve: list[CurvePoint]
    recent: list[float]
    """The losses of the steps since the last point of the curve."""
    readings: list[Reading]
    split: bool
    """Whether each process holds some rows of the state."""


def write_checkpoint(run: Run, folder: Path, fingerprint: str) -> Path:
    """Write a checkpoint of the run, and then delete the earlier ones. Returns its folder.

    All processes call this. The first one writes the state. If the state is split, each process writes its rows, and
    all wait for each other.
    """
    target = folder / f"step-{run.state.step:08d}"
    if not run.split and not parallel.is_first():
        return target
    files = parallel.count() if run.split else 1
    record = {"fingerprint": fingerprint, "files": files, "step": run.state.step}
    with folder_of_all(target) if run.split else whole_folder(target) as partial:
        file = partial / file_name(parallel.rank(), files)
        save_file({name: local(tensor) for name, tensor in run.state.all_tensors().items()}, file)
        sync(file)
        if parallel.is_first():
            write_json(
                partial / "run.json", record | {"curve": run.curve, "recent": run.recent, "readings": run.readings}
            )
    for other in folder.glob("step-*") if parallel.is_first() else ():  # beside them lie files of editors and systems
        if other != target:
            shutil.rmtree(other, ignore_errors=True)
    return target


def file_name(number: int, count: int) -> str:
    return f"state-{number + 1:05d}-of-{count:05d}.safetensors"


@contextmanager
def folder_of_all(target: Path) -> Iterator[Path]:
    """A folder that all processes write into. It becomes ``target`` when all have ended the block well."""
    partial = target.with_name(target.name + ".partial")
    with whole_folder(target) if parallel.is_first() else nullcontext():
        parallel.wait()  # until the first has made it
        yield partial
        parallel.wait()


def resume(run: Run, folder: Path, fingerprint: str) -> Path | None:
    """Set ``run`` to the newest checkpoint with this fingerprint. Returns its folder, or None if there is none.

    All processes call this, and each reads what it holds. A checkpoint of a run with other settings is ignored, and so
    is one that is damaged or that a process cannot read. The log has a line for each.
    """
    found = sorted(path.name for path in folder.glob("step-" + "[0-9]" * 8))
    for name in reversed(parallel.said_by_first(found)):
        path, problem = folder / name, ""
        try:
            record = Record.model_validate(read_json(path / "run.json"))
            if record.step != int(name.removeprefix("step-")):
                raise ValueError(f"it holds step {record.step}")
            if record.fingerprint == fingerprint:
                files = [path / file_name(number, record.files) for number in range(record.files)]
                for number in parallel.mine(range(record.files)):
                    intact(files[number])
                tensors = read_tensors(files, run)
            else:
                problem = "is from a run with other settings: ignored"
        except (UserError, SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            problem = f"is damaged: ignored ({' '.join(str(error).split())})"
        if parallel.anywhere(bool(problem)):
            log.warning("%s %s", path, problem or "can't be read by another process: ignored")
            continue
        held = run.state.all_tensors()
        with torch.no_grad():
            for key, tensor in tensors.items():
                local(held[key]).copy_(tensor)  # a copy, because the alignment of a mapped file can change sums
        run.state.step, run.curve, run.recent = record.step, record.curve, record.recent
        run.readings[:] = record.readings
        log.info("going on from %s", path)
        return path
    return None


def read_tensors(files: Sequence[Path], run: Run) -> dict[str, Tensor]:
    """The tensors that the files hold, or the rows of them that this process holds.

    Raises KeyError or ValueError if they are not those of the run.
    """
    with ExitStack() as stack:
        parts = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
        found = {}
        for name, tensor in run.state.all_tensors().items():
            found[name] = read_rows(parts, name, run.split) if tensor.dim() else parts[0].get_tensor(name)
            if found[name].shape != local(tensor).shape:
                raise ValueError(f"{name} should be {tuple(local(tensor).shape)}, is {tuple(found[name].shape)}")
        return found


def read_rows(parts: Sequence[Any], name: str, split: bool) -> Tensor:
    """The rows of a tensor that this process holds, of files in which its rows follow one another."""
    slices = [part.get_slice(name) for part in parts]
    lengths = [part.get_shape()[0] for part in slices]
    wanted = rows_of(sum(lengths)) if split else slice(0, sum(lengths))
    found, first = [], 0
    for part, length in zip(slices, lengths, strict=True):
        start, stop = (min(max(row - first, 0), length) for row in (wanted.start, wanted.stop))
        found.append(part[start:stop])
        first += length
    return torch.cat(found)
