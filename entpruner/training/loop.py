"""The training loop: AdamW, a moving average of the weights, and exact resume."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim.adamw import adamw

from entpruner.data.store import Images
from entpruner.errors import Stopped, UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.compute import Compute
from entpruner.params.training import Training
from entpruner.process import Process
from entpruner.system import parallel
from entpruner.system.devices import device_of
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator
from entpruner.system.stopping import StopRequest
from entpruner.training.batches import batch_indices
from entpruner.training.resume import CurvePoint, Run, as_first_has_it, resume, write_checkpoint
from entpruner.training.state import TrainState

log = logging.getLogger(__name__)

Objective = Callable[[BlockNetwork, Tensor, Tensor, Tensor, Tensor], Tensor]
"""The loss () of a batch: of model, images x (B, C, H, W), noise of the shape of x, times t (B,) and labels y (B,)."""


def data_loss(process: Process) -> Objective:
    """The mean of the process's loss over the batch."""
    return lambda model, x, noise, t, y: process.losses(model, x, noise, t, y)["loss"].mean()


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
) -> list[CurvePoint]:
    """Train ``state`` in place over the steps start..stop of a run of ``settings.steps``. Returns the curve.

    Only parameters that require a gradient are trained and averaged. ``objective`` is by default the loss of the
    process; a network that it uses must already be on the device. ``state`` stays on the device.

    Every random number follows from (seed, artefact, step). Checkpoints go to ``resume_folder``, which the caller
    deletes when its output is complete. After a kill the same call goes on from the last checkpoint with the same
    ``fingerprint`` (a digest of all that the result depends on), and on the CPU it ends with the same bits.

    Several processes (``parallel``) make the same call and share each batch. Their number, and the number of pieces in
    which each computes its share, change the result by rounding alone.

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
    device = device_of(compute)
    state.step = start
    run = Run(state, curve=[], recent=[])
    last_good = None
    if resume_folder is not None and parallel.is_first():
        last_good = resume(run, resume_folder, fingerprint)
    state.to(device)
    as_first_has_it(run)
    state.model.checkpointing = compute.gradient_checkpointing
    if compute.compile:
        state.model.compile_blocks()

    trained = {name: parameter for name, parameter in state.model.named_parameters() if parameter.requires_grad}
    parameters: list[Tensor] = list(trained.values())
    averages: list[Tensor] = [state.ema.get_parameter(name) for name in trained]
    adam = [state.adam[name] for name in trained]
    objective = objective or data_loss(process)
    half_life = settings.ema_half_life * max(stop - start, 1)  # in steps
    forget = 1 - 0.5 ** (1 / half_life)

    unread: list[Tensor] = []  # losses on the device, because reading one makes the GPU wait
    clock, clock_step = time.perf_counter(), state.step
    heeded = resume_folder is not None
    with Progress(state.step, stop, settings.batch_size) as progress, StopRequest(heeded) as stop_request:
        while state.step < stop:
            lr = learning_rate(settings, state.step)
            indices = batch_indices(state.step, settings.batch_size, len(images), seed, artefact)
            batch = draw_batch(images, indices, process, settings, generator(seed, artefact, state.step))
            loss = backward(objective, state.model, batch, settings, compute, device)
            parallel.add_up(parameter.grad for parameter in parameters if parameter.grad is not None)
            if settings.gradient_clip is not None:
                clip_grad_norm_(parameters, settings.gradient_clip)
            adamw_step(parameters, adam, settings, lr)
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, forget)
            state.model.zero_grad()
            unread.append(loss)
            state.step += 1

            stopping = parallel.anywhere(stop_request.made) and state.step < stop
            at_point = state.step % settings.log_every == 0 or state.step == stop
            at_checkpoint = stopping or (state.step % settings.checkpoint_every == 0 and state.step < stop)
            if at_point or at_checkpoint:
                shares = torch.stack(unread)
                unread.clear()
                parallel.add_up([shares])
                losses = shares.tolist()
                require_finite(losses, parameters, state.step, settings, last_good)
                run.recent += losses
            if at_point:
                now = time.perf_counter()
                speed = (state.step - clock_step) * settings.batch_size / (now - clock)
                mean = math.fsum(run.recent) / len(run.recent)
                blocks = len(state.model.blocks)
                run.curve.append(
                    {"step": state.step, "loss": mean, "lr": lr, "images_per_second": speed, "blocks": blocks}
                )
                run.recent.clear()
                progress.set_postfix_str(f"loss {mean:.4f}", refresh=False)
                clock, clock_step = now, state.step
            if at_checkpoint and resume_folder is not None and parallel.is_first():
                last_good = write_checkpoint(run, resume_folder, fingerprint)
                progress.clear()
                log.info("step %d of %d, loss %.4f: %s", state.step, stop, losses[-1], last_good)
            progress.update()
            if stopping:
                saved = parallel.said_by_first(str(last_good))  # waits until the first has saved it
                raise Stopped(f"asked to stop, saved {saved}: run the same command again to go on")
    return run.curve


def learning_rate(settings: Training, step: int) -> float:
    """The rate of a step (from 0) of the whole run: a linear warm-up, then a constant or half a cosine down to 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.decay == "constant":
        return settings.learning_rate
    done = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2


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
    objective: Objective,
    model: BlockNetwork,
    batch: tuple[Tensor, ...],
    settings: Training,
    compute: Compute,
    device: torch.device,
) -> Tensor:
    """Add the gradient of this process's share of a batch to that of the weights, piece by piece. Returns its loss ().

    Shares and pieces are weighted by their rows, so gradients and losses add up to those of the batch.
    """
    losses = []
    for rows in parallel.rows_of(settings.batch_size, compute.micro_batch):
        with torch.autocast("cuda", torch.bfloat16, enabled=compute.bf16 and device.type == "cuda"):
            loss = objective(model, *(moved(tensor[rows], device) for tensor in batch))
        loss = loss * ((rows.stop - rows.start) / settings.batch_size)
        torch.autograd.backward(loss)
        losses.append(loss.detach())
    return torch.stack(losses).sum()


@torch.no_grad()
def adamw_step(parameters: list[Tensor], adam: list[dict[str, Tensor]], settings: Training, lr: float) -> None:
    """One step of PyTorch's fused AdamW. Its Optimizer class is not used, because its imports take seconds."""
    adamw(
        parameters,
        [parameter.grad for parameter in parameters if parameter.grad is not None],
        [moments["exp_avg"] for moments in adam],
        [moments["exp_avg_sq"] for moments in adam],
        [],
        [moments["step"] for moments in adam],
        fused=True,
        amsgrad=False,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        lr=lr,
        weight_decay=settings.weight_decay,
        eps=1e-8,
        maximize=False,
    )


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device. It goes to a GPU from pinned memory, so that the CPU can draw the next batch."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def require_finite(
    losses: list[float], parameters: list[Tensor], step: int, settings: Training, last_good: Path | None
) -> None:
    """Raise UserError if one of the losses of the steps up to ``step``, or a weight after them, is not finite."""
    bad = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if bad is not None:
        step = step - len(losses) + bad + 1
        what = f"the loss is {losses[bad]} at step {step}"
    elif not get_total_norm(parameters).isfinite():
        what = f"the weights are not finite after step {step}"
    else:
        return
    rate = learning_rate(settings, step - 1)
    raise UserError(
        f"training stopped: {what}, learning rate {rate:.3g}; last good checkpoint: {last_good or 'none yet'}. "
        "Lower learning_rate or set gradient_clip"
    )
