"""Checkpoints from which a killed run goes on: ``<folder>/step-<step>/``, each written whole."""

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
    """A point of the training curve: loss and speed are means over the steps since the point before."""

    step: int
    """Steps of the whole run done so far."""
    loss: float
    lr: float
    images_per_second: float
    blocks: int


@dataclass
class Run:
    """All that the rest of a run depends on."""

    state: TrainState
    curve: list[CurvePoint]
    recent: list[float]
    """Losses of the steps since the curve's last point."""


def write_checkpoint(run: Run, folder: Path, fingerprint: str) -> Path:
    """Write the run's checkpoint, and only then delete the earlier ones. Returns where it lies."""
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
    """Bring ``run`` to the newest checkpoint with this fingerprint; returns where that lies, None if there is none.

    A checkpoint of another run (other settings) and a damaged one are passed over, with a line in the log.
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
    """Give every process the run of the first, which alone reads and writes checkpoints: all go on from the same bits.

    The states must be alike in names and shapes, and on the device.
    """
    tensors = [tensor for _, tensor in run.state.named_tensors()] + list(run.state.ema.state_dict().values())
    parallel.copied_from_first(tensors)
    run.state.step, run.curve, run.recent = parallel.said_by_first([run.state.step, run.curve, run.recent])
