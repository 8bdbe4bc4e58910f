"""What a stock pipeline gives its transformer: captured while the pipeline runs on prompts, and used as draws.

So nothing here knows how a pipeline embeds its prompts, packs its latents, spaces its times or guides. A draw is one
call of the transformer, with all samples of its batch. Draws of one sampling are alike, so the jackknife leaves out
whole samplings.
"""

import inspect
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import DiffusionPipeline
from diffusers.training_utils import free_memory
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entpruner.errors import UserError
from entpruner.params.pipelines import OwnPipeline, Sampled
from entpruner.pipelines.replay import Call, Denoiser, first_tensor
from entpruner.scores.context import Context, groups_of
from entpruner.system.progress import Progress
from entpruner.system.randomness import generator

log = logging.getLogger(__name__)

Arguments = list[dict[str, Any]]
"""What a pipeline is called with, for each of some samplings."""


class Captured(NamedTuple):
    """One call of the transformer, with the output. Its tensors lie on the CPU."""

    call: Call
    output: Tensor
    """What the whole transformer answered."""
    sampling: int
    fraction: float
    """The time of the call: 1 is pure noise, 0 is data. It is the place in the sampling, not the scheduler's time."""


@dataclass(frozen=True)
class Draw:
    """A captured call, as criteria see it. Its number is that of its sampling."""

    group: Tensor  # (1,) int64, the number of the sampling, whose draws are alike
    t: Tensor  # (1,)
    y: Tensor  # (1,) int64: there is one class
    inputs: tuple[Call]
    target: Tensor  # the whole network's output


@dataclass(frozen=True, kw_only=True)
class CapturedContext(Context):
    """A transformer of diffusers, and calls of it. The loss is the distance to what the whole network answers."""

    model: Denoiser
    calls: Sequence[Captured]

    @property
    def groups(self) -> int:
        return groups_of(len({captured.sampling for captured in self.calls}))

    @property
    def num_classes(self) -> int:
        return 1

    def draws(self) -> Iterator[Draw]:
        with Progress(0, len(self.calls), batch_size=1, unit="draw") as progress:
            for captured in self.calls:
                group, t = torch.tensor([captured.sampling]), torch.tensor([captured.fraction])
                inputs, target = (captured.call.to(self.device),), captured.output.to(self.device)
                yield Draw(group.to(self.device), t.to(self.device), torch.zeros_like(group), inputs, target)
                progress.update()

    def prediction(self, output: Tensor) -> Tensor:
        """The predicted noise or velocity, without variances, as one row: (1, K).

        An image transformer that answers twice as many channels as it takes has variances in the second half.
        """
        config = self.model.network.config
        channels = config.get("in_channels")
        with_variance = channels and output.dim() in (4, 5) and output.shape[1] == 2 * channels
        return (output[:, :channels] if with_variance else output).reshape(1, -1)

    def losses(self, batch: Draw, output: Tensor) -> Tensor:
        """The mean squared distance to the whole network's prediction: (1,)."""
        return (self.prediction(output) - self.prediction(batch.target)).float().square().mean(1)

    def sloped(self, batch: Draw, output: Tensor) -> Tensor:
        """A random projection of the prediction: (1,).

        The distance to the whole network is smallest at the whole network, where it has no slope. Its second-order term
        is the squared slope of the prediction, and the mean over random signs of the squared slope of a projection is
        that. So what Taylor sums, |w slope|, estimates the root of what removing the weight w adds to the distance.
        """
        prediction = self.prediction(output).float()
        random = generator(self.seed, self.artefact, "signs", int(batch.group), round(1e6 * float(batch.t)))
        signs = torch.randint(2, prediction.shape, generator=random).to(prediction) * 2 - 1
        return (signs * prediction).sum(1) / prediction.shape[1] ** 0.5

    def bins(self, t: Tensor) -> Tensor:
        bins = self.settings.bins
        return (t * bins).long().clamp(max=bins - 1)


# ------------------------------------------------------------------------------------------------------- running it


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file, one a line. Empty lines are passed over."""
    try:
        prompts = [line.strip() for line in path.read_text().splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8; give one with a prompt a line") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a text file with a prompt a line") from None
    if not any(prompts):
        raise UserError(f"{path}: no prompt in it; give a text file with a prompt a line")
    return [prompt for prompt in prompts if prompt]


def samplings(pipeline: DiffusionPipeline, prompts: Sequence[str], settings: OwnPipeline, draws: int) -> Arguments:
    """What the pipeline is called with in the samplings that ``draws`` are kept of: prompts without replacement."""
    most = -(-draws // settings.pipeline.kept)
    order = torch.randperm(len(prompts), generator=generator(settings.seed, "prompts")).tolist()[:most]
    log.info("%d of %d prompts", len(order), len(prompts))
    return [given(pipeline, prompts[number], settings.pipeline) for number in order]


@torch.no_grad()
def captured(pipeline: DiffusionPipeline, each: Arguments, kept: int, draws: int, seed: int) -> list[Captured]:
    """``draws`` calls of the pipeline's transformer, ``kept`` of each sampling, spread over its times.

    The samplings are gone through several times if there are too few, each time with other noise.
    """
    found: list[Captured] = []
    with Progress(0, draws, batch_size=1, unit="call") as progress:
        for sampling in count():
            random = noise_of(seed, sampling)
            calls = calls_of(pipeline, each[sampling % len(each)] | {"generator": random})
            positions = spread(len(calls), kept, sampling)[: draws - len(found)]
            found += [Captured(*calls[i], sampling, 1 - (i + 0.5) / len(calls)) for i in positions]
            progress.update(len(positions))
            if len(found) == draws:
                break
    return found


def noise_of(seed: int, sampling: int) -> torch.Generator:
    """The generator that a sampling draws its noise from, on the CPU."""
    return generator(seed, "sampling", sampling)


def spread(calls: int, kept: int, sampling: int) -> list[int]:
    """``kept`` of the calls' numbers, at even distances. Samplings begin at different ones, so that all are met.

    They begin at multiples of the golden ratio, which lie evenly however many there are: the first calls are the same.
    """
    kept = min(kept, calls)
    start = (sampling * (5**0.5 - 1) / 2 + 0.5) % 1
    return [int((i + start) * calls / kept) for i in range(kept)]


def given(pipeline: DiffusionPipeline, prompt: str, how: Sampled) -> dict[str, Any]:
    """The arguments of a sampling. Raises UserError for a setting that the pipeline does not take."""
    takes = inspect.signature(type(pipeline).__call__).parameters
    if "prompt" in takes:
        asked: dict[str, Any] = {"prompt": prompt}
    elif "class_labels" in takes:
        asked = {"class_labels": [class_number(pipeline, prompt)]}
    else:
        raise UserError(
            f"{type(pipeline).__name__}: takes neither a prompt nor class_labels, so no line can be shown it"
        )
    asked |= {"num_inference_steps": how.steps, "height": how.height, "width": how.width}
    asked |= {"num_frames": how.frames, "guidance_scale": how.guidance}
    asked = {key: value for key, value in asked.items() if value is not None}
    if unknown := [key for key in asked if key not in takes]:
        raise UserError(f"{type(pipeline).__name__}: takes no {', '.join(unknown)}; leave it out")
    return asked | ({"output_type": "latent"} if "output_type" in takes else {})


def class_number(pipeline: DiffusionPipeline, text: str) -> int:
    """A class of a class-conditional pipeline, by number or name."""
    labels: dict[str, int] = getattr(pipeline, "labels", None) or {}
    if text.isdecimal():
        return int(text)
    if text not in labels:
        raise UserError(f"{text}: a class that the pipeline has no name for; give a number")
    return labels[text]


class Enough(Exception):  # noqa: N818 (nothing went wrong)
    """The prompt is embedded, and the first call of the transformer was about to begin."""


def calls_of(pipeline: DiffusionPipeline, arguments: dict[str, Any]) -> list[tuple[Call, Tensor]]:
    """All calls of the transformer in one sampling, with its outputs, on the CPU."""
    calls: list[tuple[Call, Tensor]] = []

    def keep(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        copied = tree_map(lambda x: x.detach().to("cpu", copy=True) if isinstance(x, Tensor) else x, (args, kwargs))
        calls.append((Call(*copied), first_tensor(output).detach().to("cpu", copy=True)))

    handle = pipeline.transformer.register_forward_hook(keep, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    try:
        pipeline(**arguments)
    finally:
        handle.remove()
    return calls


@contextmanager
def embedded(pipeline: DiffusionPipeline, each: Arguments) -> Iterator[None]:
    """Embed the prompts of some samplings, and free the text encoders. Within the block, these samplings can be run.

    Each is begun, and stopped before its transformer is called. What ``encode_prompt`` of the pipeline returned until
    then is handed back when it is asked again. A pipeline without that method keeps its encoders.
    """
    if not hasattr(pipeline, "encode_prompt"):
        yield
        return
    encode, known = pipeline.encode_prompt, {}

    def remembering(*args: Any, **kwargs: Any) -> Any:
        asked = repr((args, kwargs))
        if asked not in known:
            known[asked] = encode(*args, **kwargs)
        return known[asked]

    def stop(*_: Any) -> None:
        raise Enough

    pipeline.encode_prompt = remembering
    handle = pipeline.transformer.register_forward_pre_hook(stop)
    try:
        for arguments in each:
            with suppress(Enough):
                pipeline(**arguments)
        handle.remove()
        for name in [name for name in pipeline.components if name.startswith("text_encoder")]:
            setattr(pipeline, name, None)
        free_memory()
        yield
    finally:
        handle.remove()
        del pipeline.encode_prompt
