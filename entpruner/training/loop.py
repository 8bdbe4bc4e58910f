"""The training loop: an optimizer, a moving average of the weights, and exact resume."""

import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from entpruner.data.store import Images
from entpruner.errors import Stopped, UserError
from entpruner.params.compute import Compute
from entpruner.params.training import Training
from entpruner.process import Process
from entpruner.system import parallel
from entpruner.system.devices import device_of
from entpruner.system.live import Live
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator
from entpruner.system.stopping import StopRequest
from entpruner.training.batches import batch_indices
from entpruner.training.objective import Objective, data_loss
from entpruner.training.optimizers import stepper
from entpruner.training.reading import Watch
from entpruner.training.resume import CurvePoint, Run, resume, write_checkpoint
from entpruner.training.sharing import (
    accumulating,
    bring_together,
    collect_gradients,
    is_split,
    local,
    settle,
    shared,
    total_norm,
)
from entpruner.training.state import TrainState

log = logging.getLogger(__name__)


def train(
    state: TrainState,
    process: Process,
    images: Images,
    settings: Training,
    *,
    start: int,
    stop: int,
    seed: int,
    artefact: str,
    compute: Compute,
    resume_folder: Path | None = None,
    fingerprint: str = "",
    objective: Objective | None = None,
    live: Live | None = None,
    watch: Watch | None = None,
) -> list[CurvePoint]:
    """Train ``state`` in place over the steps start..stop of a run of ``settings.steps``. Returns the curve.

    Only parameters that require a gradient are trained and averaged. ``objective`` is by default the loss of the
    process; a network that it uses must already be on the device. ``live`` is shown each point of the curve and each
    reading at once. The readings are left in ``watch``. ``state`` stays on the device. With
    ``compute.sharding: full`` it stays where it was, and the first process alone gets what was trained.

    Every random number follows from (seed, artefact, step). Checkpoints go to ``resume_folder``, which the caller
    deletes when its output is complete. After a kill the same call goes on from the last checkpoint with the same
    ``fingerprint`` (a digest of all that the result depends on), and on the CPU it ends with the same bits.

    Several processes (``sharing``) make the same call and share each batch. Their number, the way in which they share,
    and the number of pieces in which each computes its rows, change the result by rounding alone.

    Raises UserError for images of other classes than the model's, for a batch that the processes cannot share evenly,
    and for a loss or weights that are not finite. With a folder, SIGTERM to any process raises Stopped after the step
    and a checkpoint.
    """
    if images.num_classes != state.model.null_class:
        raise UserError(
            f"{artefact}: the images have {images.num_classes} classes, the model {state.model.null_class}: "
            "give it a new label table first"
        )
    if settings.batch_size % parallel.count():
        raise UserError(
            f"{artefact}: {parallel.count()} processes can't share a batch of {settings.batch_size} evenly: set "
            "batch_size to a multiple, or compute.gpus and compute.nodes to divisors"
        )
    device, split = device_of(compute), is_split(compute)
    whole = state
    whole.step = start
    whole.model.checkpointing = compute.gradient_checkpointing
    state, loss_of = shared(whole, objective or data_loss(process), compute, device)
    readings = [] if watch is None else watch.readings
    run = Run(state, curve=[], recent=[], readings=readings, split=split)
    last_good = None if resume_folder is None else resume(run, resume_folder, fingerprint)
    if compute.compile:
        state.model.compile_blocks()

    learning = {name: parameter for name, parameter in state.model.named_parameters() if parameter.requires_grad}
    parameters: list[Tensor] = list(learning.values())
    with torch.no_grad():
        weights = [local(parameter) for parameter in parameters]
    averages: list[Tensor] = [state.ema.get_parameter(name) for name in learning]
    move = stepper(weights, [state.moments[name] for name in learning], settings)
    forget = 1 - 0.5 ** (1 / settings.half_life(stop - start))

    def drawn(step: int) -> tuple[Tensor, ...]:
        indices = batch_indices(step, settings.batch_size, len(images), seed, artefact)
        return draw_batch(images, indices, process, settings, generator(seed, artefact, step))

    if state.step < stop:
        settle(loss_of, lambda: backward(loss_of, drawn(state.step), settings, compute, device))
    if watch is not None and not readings:
        take(watch, state, live)
    unread: list[Tensor] = []  # losses on the device, because reading one makes the GPU wait
    clock, clock_step = time.perf_counter(), state.step
    heeded = resume_folder is not None
    with Progress(state.step, stop, settings.batch_size) as progress, StopRequest(heeded) as stop_request:
        while state.step < stop:
            lr = learning_rate(settings, state.step)
            loss = backward(loss_of, drawn(state.step), settings, compute, device)
            gradients = collect_gradients(parameters, weights)
            if settings.gradient_clip is not None:
                clip_grads_with_norm_(weights, settings.gradient_clip, total_norm(gradients, split))
            move(lr)
            with torch.no_grad():
                torch._foreach_lerp_(averages, weights, forget)
            for weight in weights:
                weight.grad = None
            unread.append(loss)
            state.step += 1

            stopping = parallel.anywhere(stop_request.made) and state.step < stop
            at_point = state.step % settings.log_every == 0 or state.step == stop
            at_checkpoint = stopping or (state.step % settings.checkpoint_every == 0 and state.step < stop)
            at_reading = watch is not None and (state.step % watch.every == 0 or state.step == stop)
            if at_point or at_checkpoint or at_reading:
                losses = parallel.mean(torch.stack(unread)).tolist()
                unread.clear()
                finite = bool(total_norm(weights, split).isfinite())
                require_finite(losses, finite, state.step, settings, last_good)
                run.recent += losses
            if at_point:
                now = time.perf_counter()
                speed = (state.step - clock_step) * settings.batch_size / (now - clock)
                mean = math.fsum(run.recent) / len(run.recent)
                blocks = len(state.model.blocks)
                point = CurvePoint(step=state.step, loss=mean, lr=lr, images_per_second=speed, blocks=blocks)
                run.curve.append(point)
                if live is not None:
                    live.add(point)
                run.recent.clear()
                progress.set_postfix_str(f"loss {mean:.4f}", refresh=False)
                clock, clock_step = now, state.step
            if watch is not None and at_reading:
                clock += take(watch, state, live)
            if at_checkpoint and resume_folder is not None:
                last_good = write_checkpoint(run, resume_folder, fingerprint)
                progress.clear()
                log.info("step %d of %d, loss %.4f: %s", state.step, stop, losses[-1], last_good)
            progress.update()
            if stopping:
                saved = parallel.said_by_first(str(last_good))  # waits until the first has saved it
                raise Stopped(f"asked to stop, saved {saved}: run the same command again to go on")
    if split:
        bring_together(state, whole)
    return run.curve


def take(watch: Watch, state: TrainState, live: Live | None) -> float:
    """Take a reading. Returns the seconds that it took."""
    seconds = watch.take(state)
    if live is not None and watch.readings:
        live.add(watch.readings[-1])
    return seconds


def learning_rate(settings: Training, step: int) -> float:
    """The rate of a step (from 0) of the whole run: a linear warm-up, then a constant, or half a cosine down to 0, once
    or again and again."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return settings.learning_rate
    done, whole = step - settings.warmup_steps, settings.steps - settings.warmup_steps
    if settings.decay == "restarts":
        assert settings.restart_every is not None
        done, whole = done % settings.restart_every, settings.restart_every
    return settings.learning_rate * (1 + math.cos(math.pi * (done / whole))) / 2


def draw_batch(
    images: Images, indices: Tensor, process: Process, settings: Training, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The images (B, C, H, W), noise, times (B,) and labels (B,) of a step, on the CPU.

    All random numbers of a step are drawn here, also those that drop labels and mirror images.
    """
    n = len(indices)
    t = process.draw_times(n, random)
    noise = torch.randn((n, *images.shape), generator=random)
    dropped = torch.rand(n, generator=random) < settings.label_dropout
    mirrored = torch.rand(n, generator=random) < 0.5 if settings.horizontal_flip else None
    x, y = images.batch(indices, random, mirrored)
    y = y.masked_fill(dropped, images.num_classes)  # the null class is the one after the last
    return x, noise, t, y


def backward(
    loss_of: nn.Module, batch: tuple[Tensor, ...], settings: Training, compute: Compute, device: torch.device
) -> Tensor:
    """Leave the gradient of a batch in the weights: the mean of those of all processes. Returns the loss () of the rows
    that this process computes, piece by piece. Pieces are weighted by their rows.
    """
    losses = []
    pieces = parallel.rows_of(settings.batch_size, compute.micro_batch)
    share = pieces[-1].stop - pieces[0].start
    for rows in pieces:
        with parallel.exchange(), accumulating(loss_of, last=rows is pieces[-1]):
            with torch.autocast(device.type, torch.bfloat16, enabled=compute.bfloat16_on(device.type)):
                loss = loss_of(*(moved(tensor[rows], device) for tensor in batch))
            loss = loss * ((rows.stop - rows.start) / share)
            torch.autograd.backward(loss)
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. It goes to a GPU from pinned memory, so that the CPU can draw the next batch."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def require_finite(losses: list[float], finite: bool, step: int, settings: Training, last_good: Path | None) -> None:
    """Raise UserError if one of the losses of the steps up to ``step`` is not finite, or the weights after them."""
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is not None:
        step = step - len(losses) + bad + 1
        what = f"the loss is {losses[bad]} at step {step}"
    elif not finite:
        what = f"the weights are not finite after step {step}"
    else:
        return
    rate = learning_rate(settings, step - 1)
    raise UserError(
        f"training stopped: {what}, learning rate {rate:.3g}; last good checkpoint: {last_good or 'none yet'}. "
        "Lower learning_rate or set gradient_clip"
    )
