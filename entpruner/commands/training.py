"""What the four training commands share: they train a state over some steps, and go on after a kill."""

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from entpruner.commands.inputs import model_for
from entpruner.data.latent_store import AnyStore, open_store
from entpruner.errors import UserError
from entpruner.layout import CARD, CURVE, MANIFEST, RESULTS, STATE, TIMING, WEIGHTS
from entpruner.models.arithmetic import training_flops
from entpruner.models.checkpoints import ModelCard, save_model
from entpruner.params.training import Finetuning
from entpruner.process import Process, make_process
from entpruner.rules.rule import WATCHING, TrainingSettings
from entpruner.system import parallel
from entpruner.system.devices import device_of
from entpruner.system.files import read_json, whole_folder, write_json
from entpruner.system.live import Live
from entpruner.system.recording import Recorder
from entpruner.training.distill import distilled
from entpruner.training.loop import train
from entpruner.training.objective import Objective, data_loss
from entpruner.training.peft import merge, trained_parameters
from entpruner.training.reading import Reading, Watch
from entpruner.training.state import TrainState


def is_fresh(settings: TrainingSettings) -> bool:
    """Whether a training begins with weights alone, as all but the later stages of an arm do."""
    return settings.stage <= 1


def starting_state(settings: TrainingSettings, data: AnyStore, init: Path) -> tuple[TrainState, ModelCard]:
    """The state that a training begins with: the weights in ``init``, and in a later stage the whole state there."""
    model, card = model_for(data, init)
    optimizer = settings.training.optimizer
    return TrainState.start(model, optimizer) if is_fresh(settings) else TrainState.load(init, model, optimizer), card


def train_into(
    out: Path,
    state: TrainState,
    card: ModelCard,
    settings: TrainingSettings,
    recorder: Recorder,
    *,
    store: Path,
    init: Path | None = None,
    teacher: Path | None = None,
    scores: Path | None = None,
    order: Sequence[int] | None = None,
    documents: dict[str, Any] | None = None,
) -> None:
    """Train ``state`` and write model, training state, curve and timing to ``out``.

    ``init`` is the folder that ``state`` was read from. In a later stage of an arm its steps, FLOPs and seconds are
    part of the totals. The seconds of a command that was killed count from when it went on. ``teacher`` is the folder
    of the network to learn from, where the settings ask for distillation. ``scores`` is a file that decided what was
    dropped from ``state``, or what votes are about. ``order`` are the ranked blocks if they are not those of this file.
    ``documents`` are further JSON files to write, by name. Checkpoints lie in ``<out>.resume`` until all is written.

    What a method of fine-tuning added is merged into the model, but not into the training state. No training goes on
    from a state to which a method has added something.
    """
    resume_folder = out.with_name(out.name + ".resume")
    inputs = [] if scores is None else [scores]
    inputs += inputs_of(settings, store, init, teacher)
    data, process = open_store(store), make_process(card.process)
    watch = watch_of(settings, process, data, scores, order)
    tuning = settings.training if isinstance(settings.training, Finetuning) else None
    with Live(settings.compute.mlflow, shown_as(out, settings), begins=begins(settings, resume_folder)) as live:
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
            fingerprint=recorder.fingerprint(*inputs),
            objective=objective_of(settings, process, data, teacher),
            live=live,
            watch=watch,
        )
    if not parallel.is_first():
        return
    steps, kept = settings.stop - settings.start, state.ema.kept_blocks
    flops = training_flops(card.architecture, kept, settings.training.batch_size, steps, tuning)
    totals = {"total_steps": 0, "total_flops": 0, "total_seconds": 0.0}
    earlier = totals if init is None or is_fresh(settings) else read_json(init / TIMING)
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
            compiled=state.model.compiled,
        )
        timing["total_seconds"] = earlier["total_seconds"] + timing["seconds"]
        if watch is not None:
            timing["monitor"] = monitored(earlier, watch.readings, timing["total_seconds"])
        write_json(folder / TIMING, timing)
    shutil.rmtree(resume_folder, ignore_errors=True)


def watch_of(
    settings: TrainingSettings, process: Process, data: AnyStore, scores: Path | None, order: Sequence[int] | None
) -> Watch | None:
    """How the training is watched, or None if it is not monitored."""
    if settings.watched is None:
        return None
    found: Watch = import_module(WATCHING).watch_of(settings, process, data.split("train"), scores, order)
    return found


def monitored(earlier: Mapping[str, Any], readings: Sequence[Reading], seconds: float) -> dict[str, Any]:
    """What the timing says of the readings, of those of earlier stages, too. ``seconds`` is the time of all stages.

    ``share`` is the part of this time that they took. ``pruned`` is the share of votes that would have removed blocks.
    """
    whole = [*earlier.get("monitor", {"readings": []})["readings"], *readings]
    votes = [reading["votes"] for reading in whole if reading["votes"] is not None]
    return {
        "readings": whole,
        "first": {key: whole[0][key] for key in ("kappa", "zico")},
        "last": {key: whole[-1][key] for key in ("kappa", "zico")},
        "pruned": sum(vote > 0 for vote in votes) / len(votes) if votes else None,
        "share": sum(reading["seconds"] for reading in whole) / seconds,
    }


def shown_as(out: Path, settings: TrainingSettings) -> str:
    """The name under which a training that writes ``out`` is watched. The stages of an arm share one."""
    whole = out.parent if settings.stage else out
    return (whole.relative_to(RESULTS) if whole.is_relative_to(RESULTS) else whole).as_posix()


def begins(settings: TrainingSettings, resume_folder: Path) -> bool:
    """Whether a training starts with the first step of its run, and not with a checkpoint."""
    return settings.start == 0 and not resume_folder.exists()


def objective_of(settings: TrainingSettings, process: Process, data: AnyStore, teacher: Path | None) -> Objective:
    """What the training minimises: the loss on the data, or distillation from ``teacher`` where the settings say so.

    Raises UserError if hidden states are to be compared, which takes a whole batch, and the batch is cut into pieces.
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


def inputs_of(settings: TrainingSettings, store: Path, init: Path | None, teacher: Path | None) -> list[Path]:
    """The files whose content a training depends on. The store's manifest holds the checksums of its arrays."""
    files = [store / MANIFEST]
    files += [folder / name for folder in (init, teacher) if folder for name in (CARD, WEIGHTS)]
    return files if init is None or is_fresh(settings) else [*files, init / STATE]
