"""Checkpoints from which a killed run goes on: ``<folder>/step-<step>/``, which is always complete."""

import logging
import shutil
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from entpruner.errors import UserError
from entpruner.system import parallel
from entpruner.system.files import read_json, whole_folder, write_json
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


@dataclass
class Run:
    """The state and the curve of a run: all that its further steps depend on."""

    state: TrainState
    curve: list[CurvePoint]
    recent: list[float]
    """The losses of the steps since the last point of the curve."""


def write_checkpoint(run: Run, folder: Path, fingerprint: str) -> Path:
    """Write a checkpoint of the run, and then delete the earlier ones. Returns its folder."""
    target = folder / f"step-{run.state.step:08d}"
    with whole_folder(target) as partial:
        run.state.save(partial)
        save_file(run.state.ema.state_dict(), partial / "ema.safetensors")
        write_json(partial / "run.json", {"fingerprint": fingerprint, "curve": run.curve, "recent": run.recent})
    for other in folder.iterdir():
        if other != target:
            shutil.rmtree(other)
    return target


def resume(run: Run, folder: Path, fingerprint: str) -> Path | None:
    """Set ``run`` to the newest checkpoint with this fingerprint. Returns its folder, or None if there is none.

    A checkpoint of a run with other settings is ignored, and so is a damaged one. The log has a line for each.
    """
    state = run.state
    for path in sorted(folder.glob("step-" + "[0-9]" * 8), reverse=True):
        try:
            record = read_json(path / "run.json")
            if record["fingerprint"] != fingerprint:
                log.warning("%s is from a run with other settings: ignored", path)
                continue
            ema = deepcopy(state.ema)
            ema.load_state_dict(load_file(path / "ema.safetensors"))
            saved = TrainState.load(path, ema)
            run.curve, run.recent = record["curve"], record["recent"]
        except (UserError, SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            log.warning("%s is damaged: ignored (%s)", path, " ".join(str(error).split()))
            continue
        state.model, state.ema, state.adam, state.step = saved.model, saved.ema, saved.adam, saved.step
        log.info("going on from %s", path)
        return path
    return None


def as_first_has_it(run: Run) -> None:
    """Copy the run of the first process, which alone reads and writes checkpoints, to every process.

    The states must have the same names and shapes, and lie on the device.
    """
    tensors = [tensor for _, tensor in run.state.named_tensors()] + list(run.state.ema.state_dict().values())
    parallel.copied_from_first(tensors)
    run.state.step, run.curve, run.recent = parallel.said_by_first([run.state.step, run.curve, run.recent])
