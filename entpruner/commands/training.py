"""What the four training commands share: train a state over some steps, write it whole, resume after a kill."""

import json
import shutil
from pathlib import Path
from typing import Any

from entpruner.artefacts import read_json, whole_folder, write_json
from entpruner.commands.inputs import model_for
from entpruner.commands.recording import Recorder
from entpruner.data.store import Store
from entpruner.evaluation.cost import training_flops
from entpruner.models.checkpoints import ModelCard, save_model
from entpruner.params import Compute, Frozen, Training
from entpruner.process import make_process
from entpruner.training.loop import train
from entpruner.training.state import STATE_FILE, TrainState


class TrainingSettings(Frozen):
    """Settings that every training command has."""

    artefact: str
    """Names the stream of random numbers, together with ``seed``."""
    seed: int
    training: Training
    compute: Compute


class Stretch(Frozen):
    """The steps that one command trains, of a run of ``training.steps``."""

    stage: int
    """0 before there are arms, then 1, 2, ...; the recovery is the last."""
    start: int
    stop: int


def starting_state(data: Store, init: Path, *, fresh: bool) -> tuple[TrainState, ModelCard]:
    """The state that a training begins with: the weights in ``init``, or if not ``fresh`` its whole training state."""
    model, card = model_for(data, init)
    return (TrainState.start(model) if fresh else TrainState.load(init, model)), card


def train_into(
    out: Path,
    state: TrainState,
    card: ModelCard,
    store: Path,
    settings: TrainingSettings,
    stretch: Stretch,
    recorder: Recorder,
    fingerprint: str,
    *,
    before: Path | None = None,
    documents: dict[str, Any] | None = None,
) -> None:
    """Train ``state`` and write model, training state, curve and timing to ``out``.

    ``before`` is the folder that the run goes on from: its steps and FLOPs are added up. ``documents`` are further JSON
    files, by name. Checkpoints lie in ``<out>.resume`` until all is written.
    """
    resume_folder = out.with_name(out.name + ".resume")
    curve = train(
        state,
        make_process(card.process),
        Store.open(store).split("train"),
        settings.training,
        start=stretch.start,
        stop=stretch.stop,
        seed=settings.seed,
        artefact=settings.artefact,
        compute=settings.compute,
        resume_folder=resume_folder,
        fingerprint=fingerprint,
    )
    steps, kept = stretch.stop - stretch.start, state.ema.kept_blocks
    flops = training_flops(card.architecture, settings.training.batch_size, [(len(kept), steps)])
    earlier = {"total_steps": 0, "total_flops": 0} if before is None else read_json(before / "timing.json")
    with whole_folder(out) as folder:
        save_model(folder, state.ema, card.model_copy(update={"kept_blocks": kept}))
        state.save(folder)
        lines = [json.dumps({"stage": stretch.stage, **point}) + "\n" for point in curve]
        (folder / "curve.jsonl").write_text("".join(lines))
        for name, content in (documents or {}).items():
            write_json(folder / name, content)
        timing = recorder.record(
            steps=steps,
            flops=flops,
            total_steps=earlier["total_steps"] + steps,
            total_flops=earlier["total_flops"] + flops,
        )
        write_json(folder / "timing.json", timing)
    shutil.rmtree(resume_folder, ignore_errors=True)


def inputs_of(store: Path, init: Path, *, fresh: bool) -> list[Path]:
    """The files whose content a training depends on; the store's manifest holds the checksums of its arrays."""
    files = [store / "manifest.json", init / "model.json", init / "model.safetensors"]
    return files if fresh else [*files, init / STATE_FILE]
