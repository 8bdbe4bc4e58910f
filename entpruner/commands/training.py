"""What the four training commands share: train a state over some steps, write it whole, resume after a kill."""

import json
import shutil
from pathlib import Path
from typing import Any

from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import AnyStore, open_store
from entpruner.errors import UserError
from entpruner.layout import CARD, CURVE, MANIFEST, STATE, TIMING, WEIGHTS
from entpruner.models.arithmetic import training_flops
from entpruner.models.checkpoints import ModelCard, save_model
from entpruner.params.training import Finetuning
from entpruner.process import Process, make_process
from entpruner.rules.rule import TrainingSettings
from entpruner.system import parallel
from entpruner.system.devices import device_of
from entpruner.system.files import read_json, whole_folder, write_json
from entpruner.system.recording import Recorder
from entpruner.training.distill import distilled
from entpruner.training.loop import Objective, data_loss, train
from entpruner.training.peft import merge, trained_parameters
from entpruner.training.state import TrainState


def starting_state(data: AnyStore, init: Path, *, fresh: bool) -> tuple[TrainState, ModelCard]:
    """The state that a training begins with: the weights in ``init``, or if not ``fresh`` its whole training state."""
    model, card = model_for(data, init)
    return (TrainState.start(model) if fresh else TrainState.load(init, model)), card


def train_into(
    out: Path,
    state: TrainState,
    card: ModelCard,
    store: Path,
    settings: TrainingSettings,
    recorder: Recorder,
    fingerprint: str,
    *,
    before: Path | None = None,
    teacher: Path | None = None,
    documents: dict[str, Any] | None = None,
) -> None:
    """Train ``state`` and write model, training state, curve and timing to ``out``.

    ``before`` is the folder that the run goes on from: its steps, FLOPs and seconds are added up (of a command that
    was killed and went on, the seconds since it went on). ``teacher`` is the folder of the network to learn from, where
    the settings ask for distillation. ``documents`` are further JSON files, by name. Checkpoints lie in
    ``<out>.resume`` until all is written.

    What a method of fine-tuning added is merged into the model, but not into the training state: that is the training's
    own, and where something was added no training goes on from it.
    """
    resume_folder = out.with_name(out.name + ".resume")
    data, process = open_store(store), make_process(card.process)
    tuning = settings.training if isinstance(settings.training, Finetuning) else None
    curve = train(
        state,
        process,
        data.split("train"),
        settings.training,
        start=settings.start,
        stop=settings.stop,
        seed=settings.seed,
        artefact=settings.artefact,
        compute=settings.compute,
        resume_folder=resume_folder,
        fingerprint=fingerprint,
        objective=objective_of(settings, process, data, teacher),
    )
    if not parallel.is_first():
        return
    steps, kept = settings.stop - settings.start, state.ema.kept_blocks
    flops = training_flops(card.architecture, kept, settings.training.batch_size, steps, tuning)
    totals = {"total_steps": 0, "total_flops": 0, "total_seconds": 0.0}
    earlier = totals if before is None else read_json(before / TIMING)
    if tuning is not None:
        merge(state.ema, tuning)
    with whole_folder(out) as folder:
        save_model(folder, state.ema, card.model_copy(update={"kept_blocks": kept}))
        state.save(folder)
        lines = [json.dumps({"stage": settings.stage, **point}) + "\n" for point in curve]
        (folder / CURVE).write_text("".join(lines))
        for name, content in (documents or {}).items():
            write_json(folder / name, content)
        timing = recorder.record(
            steps=steps,
            flops=flops,
            trained_parameters=trained_parameters(state.model),
            total_steps=earlier["total_steps"] + steps,
            total_flops=earlier["total_flops"] + flops,
        )
        timing["total_seconds"] = earlier["total_seconds"] + timing["seconds"]
        write_json(folder / TIMING, timing)
    shutil.rmtree(resume_folder, ignore_errors=True)


def objective_of(settings: TrainingSettings, process: Process, data: AnyStore, teacher: Path | None) -> Objective:
    """What the training minimises: the data's own loss, or distillation from ``teacher`` where the settings say so.

    Raises UserError if hidden states, which are compared over a whole batch, would be seen in pieces.
    """
    training, compute = settings.training, settings.compute
    if not isinstance(training, Finetuning) or training.distillation is None:
        return data_loss(process)
    assert teacher is not None, "the rule hands over the teacher wherever there is distillation"
    if training.distillation.features and compute.in_pieces(training.batch_size):
        raise UserError(
            f"compute.micro_batch {compute.micro_batch}: distillation.features compares hidden states over a whole "
            "batch; leave micro_batch out and set compute.gradient_checkpointing, or features to 0"
        )
    unpruned, _ = model_for(data, teacher)
    return distilled(process, unpruned.to(device_of(compute)), training.distillation)


def inputs_of(store: Path, init: Path, *, fresh: bool, teacher: Path | None = None) -> list[Path]:
    """The files whose content a training depends on; the store's manifest holds the checksums of its arrays."""
    files = [store / MANIFEST]
    files += [folder / name for folder in (init, teacher) if folder for name in (CARD, WEIGHTS)]
    return files if fresh else [*files, init / STATE]
