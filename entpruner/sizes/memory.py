"""Estimates of what a command needs of a GPU's memory, from the study's sizes. No GPU has tested them yet.

Weights are counted, what is of their size, and what a pass keeps or holds at its peak. For a transformer's block this
is what autograd keeps, array by array, and a test holds the count against autograd in float32. The rest are rules of
thumb: ``SLACK`` for what the allocator leaves in pieces, ``OVERHEAD`` for the libraries' own buffers, and the arrays of
U-Nets and feature nets.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from entpruner.models.arithmetic import mlp_width, parameters_of, pixels_of, places, tokens_of
from entpruner.params.arms import Criterion
from entpruner.params.backbones import Architecture, UNetArchitecture
from entpruner.params.compute import Compute
from entpruner.params.criteria import cost_of
from entpruner.params.evaluation import ClassifierTraining, Evaluation
from entpruner.params.latents import Latents
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning, Training
from entpruner.sizes.nets import AUTOENCODER_PARAMETERS
from entpruner.sizes.work import WORD

GIB = 2**30
HALF = 2  # bytes of a bfloat16
SLACK = 1.1
OVERHEAD = GIB
FEATURE_NET = 25e6  # bytes an image of a large feature net, at 299 pixels
CODED = {"kl": 300e6, "tiny": 100e6}  # bytes that an autoencoder holds of an image of 256 pixels
UNET_ARRAYS = 12  # arrays of the size of its output that the training of a U-Net's block keeps

Shape = Architecture | UNetArchitecture
Blocks = Collection[int]


class Memory(NamedTuple):
    """Bytes on one GPU, at the peak."""

    fixed: float
    """Bytes that do not depend on the batch: weights, and all that is of their size."""
    an_image: float
    """Bytes for each image that is computed at once."""
    images: int
    """The number of images that are computed at once."""
    setting: str
    """The key of the study that says how many images these are."""
    advice: str = ""
    """What else helps, as the end of a sentence."""

    @property
    def total(self) -> float:
        return OVERHEAD + SLACK * (self.fixed + self.images * self.an_image)

    def fitting(self, free: float) -> int:
        """The number of images at once that fit into so many bytes."""
        return max(0, int(((free - OVERHEAD) / SLACK - self.fixed) / self.an_image))

    def shortage(self, what: str, free: float, gpu: str) -> str | None:
        """What to say if only so many bytes are free on ``gpu``; None if they are enough."""
        if self.total <= free:
            return None
        fits = self.fitting(free)
        remedy = f"set {self.setting} to {fits} or less{self.advice}" if fits else f"take a larger GPU{self.advice}"
        return (
            f"{what} needs about {self.total / GIB:.3g} GiB of GPU memory ({self.images} images at once of "
            f"{self.an_image / GIB:.2g}, {self.fixed / GIB:.3g} besides), {gpu} has {free / GIB:.3g}: {remedy}"
        )


# ---------------------------------------------------------------------------------------------------- of whole commands


def training(shape: Shape, blocks: Blocks, settings: Training, compute: Compute) -> Memory:
    """A training holds weights, their average, AdamW's moments, gradients, activations, and those of a teacher."""
    p, whole = parameters_of(shape, blocks), range(shape.depth)
    tuning = settings if isinstance(settings, Finetuning) else None
    trained = p if tuning is None or tuning.method == "full" else p / 10  # a tenth is more than any method's share
    half = compute.bf16 and compute.device != "cpu"
    weight = WORD + (HALF if half else 0)  # autocast keeps what it has cast
    fixed = weight * p + WORD * p + 3 * WORD * trained
    image = activations(shape, blocks, half=half, checkpointing=compute.gradient_checkpointing)
    if tuning is not None and tuning.distillation is not None:
        fixed += weight * parameters_of(shape, whole)
        image += states(shape, whole) + states(shape, blocks)
    others = [] if compute.gradient_checkpointing else ["compute.gradient_checkpointing"]
    advice = "".join(f", or set {key}" for key in others) + ", or more compute.gpus"
    return Memory(fixed, image, compute.at_once(settings.batch_size), "compute.micro_batch", advice)


def proxies(shape: Shape, blocks: Blocks, settings: Proxies) -> Memory:
    """A vote holds raw weights and a candidate's, ZiCo's gradient and statistics, and NTK's gradients of a layer."""
    layer = 2 * WORD * settings.ntk.samples * largest_layer(shape)  # in float64
    fixed, image = 6 * WORD * parameters_of(shape, blocks) + layer, activations(shape, blocks, half=False)
    if settings.ntk.samples > settings.zico.batch_size:
        return Memory(fixed, image, settings.ntk.samples, "proxies.ntk.samples")
    return Memory(fixed, image, settings.zico.batch_size, "proxies.zico.batch_size")


def swept(shape: Shape, settings: Proxies, samples: Collection[int]) -> Memory:
    """The audit measures proxies at several numbers of samples; the largest counts."""
    ntk = settings.ntk.model_copy(update={"samples": max(samples)})
    needed = proxies(shape, range(shape.depth), settings.model_copy(update={"ntk": ntk}))
    return needed._replace(setting=needed.setting.replace("proxies.ntk", "audit.proxies"))


def sampling(shape: Shape, blocks: Blocks, settings: Sampling, latents: Latents | None = None) -> Memory:
    """A sampling makes forward passes of a batch, of twice as many images with guidance, and decodes latents."""
    image = passing(shape) * (2 if settings.guidance > 1 else 1)
    coder = coding(latents, latents.factor * shape.input_size) if latents else Memory(0, 0, 0, "")
    fixed = WORD * parameters_of(shape, blocks) + coder.fixed + coder.images * coder.an_image
    return Memory(fixed, image, settings.batch_size, "sampling.batch_size")


def scoring(shape: Shape, criterion: Criterion, settings: Scoring, sampled: Sampling) -> Memory:
    """One criterion ranks the blocks of the whole network."""
    blocks = range(shape.depth)
    weights, cost = WORD * parameters_of(shape, blocks), cost_of(criterion, settings)
    if cost == "gradients":
        return Memory(3 * weights, activations(shape, blocks, half=False), settings.batch_size, "scoring.batch_size")
    if cost == "training":
        image = activations(shape, blocks, half=False) + 3 * states(shape, blocks)  # the masks mix what passes a block
        return Memory(2 * weights, image, settings.learned.batch_size, "scoring.learned.batch_size")
    if cost == "samples":
        batch = sampled.model_copy(update={"batch_size": min(settings.ld_pruner_samples, settings.batch_size)})
        needed = sampling(shape, blocks, batch)
        return needed._replace(fixed=2 * weights, setting="scoring.batch_size")  # of the whole network, and one without
    predictions = 0
    if criterion == "ced" and settings.estimator in ("low_rank", "knn"):
        predictions = WORD * (1 + len(blocks)) * settings.draws * shape.in_channels * shape.input_size**2
    image = passing(shape) + states(shape, blocks)
    return Memory(2 * weights + predictions, image, settings.batch_size, "scoring.batch_size")


def bench(
    shape: Shape, batch_size: int, compute: Compute, sampled: Sampling | None = None, latents: Latents | None = None
) -> Memory:
    """The audit trains all weights of a sub-network beside the network that it was cut from. Where it samples from the
    sub-network, too, the autoencoder of its latents stays there all the time."""
    whole, beside = range(shape.depth), autoencoder_weights(latents) if latents else 0.0
    trained = training(shape, whole, Training(steps=0, batch_size=batch_size), compute)
    parts = [trained._replace(fixed=trained.fixed + beside)]
    parts += [sampling(shape, whole, sampled, latents)] if sampled else []
    needed = largest(parts)
    return needed._replace(fixed=needed.fixed + WORD * parameters_of(shape, whole))


def timing(shape: Shape, kept: Collection[int], batch_size: int) -> Memory:
    """Networks with so many blocks each are all there at once, and pass images in turn."""
    fixed = WORD * sum(parameters_of(shape, range(blocks)) for blocks in kept)
    return Memory(fixed, passing(shape), batch_size, "evaluation.latency_batch_size")


def classifying(settings: ClassifierTraining, image_size: int) -> Memory:
    """The training of a data set's own classifier keeps what its convolutions make, and their largest gradients."""
    image = WORD * settings.width * image_size**2 * (4 + 2)
    return Memory(0, image, settings.batch_size, "evaluation.classifier.batch_size")


def coding(latents: Latents, image_size: int) -> Memory:
    """An autoencoder encodes or decodes images."""
    image = CODED[latents.kind] * (image_size / 256) ** 2
    return Memory(autoencoder_weights(latents), image, latents.batch_size, "latents.batch_size")


def autoencoder_weights(latents: Latents) -> float:
    """Bytes of the weights of an autoencoder."""
    return WORD * AUTOENCODER_PARAMETERS[latents.kind]


def features(settings: Evaluation, image_size: int) -> Memory:
    """The largest feature net sees images: a published one, or the study's own classifier."""
    own = 3 * WORD * settings.classifier.width * image_size**2
    published = any(net.kind != "classifier" for net in settings.extractors.values())
    return Memory(0, FEATURE_NET if published else own, settings.batch_size, "evaluation.batch_size")


def largest(parts: Iterable[Memory]) -> Memory:
    """The hungriest of several parts, which do not happen at once."""
    return max(parts, key=lambda part: part.total)


# --------------------------------------------------------------------------------------------------------- of one image


def activations(shape: Shape, blocks: Blocks, *, half: bool, checkpointing: bool = False) -> float:
    """Bytes that a training step's forward pass keeps for its backward pass, and there the gradients of one block."""
    if isinstance(shape, UNetArchitecture):
        entering = [hidden(shape, block) for block in blocks]
        return sum(entering) * (1 if checkpointing else UNET_ARRAYS) + UNET_ARRAYS * max(entering)
    inside = block_activations(shape, half=half)
    return states(shape, blocks) + 2 * inside if checkpointing else (len(blocks) + 1) * inside


def block_activations(shape: Architecture, *, half: bool) -> float:
    """Bytes that autograd keeps of one block and image, in float32 or under bfloat16 autocast.

    Under autocast the residual stream and the norms stay in float32, while products see and leave bfloat16.
    """
    tokens, d, mlp = tokens_of(shape), shape.hidden_size, mlp_width(shape)
    low = HALF if half else WORD
    norms = 2 * (WORD + WORD + low)  # each: what enters, what leaves, and that modulated
    attention = low * (3 + 1 + 1)  # q, k, v; what leaves the heads, and the projection
    feedforward = low * (2 * mlp / d + 1)  # before and after GELU; what leaves
    condition = WORD * 10 * d  # adaLN, once an image
    return tokens * d * (norms + attention + feedforward) + WORD * tokens * shape.num_heads + condition


def hidden(shape: Shape, block: int) -> float:
    """Bytes of what goes from block to block, in float32: (T, D), or (K, h, w) in a U-Net."""
    if isinstance(shape, UNetArchitecture):
        level, channels, _ = places(shape)[block]
        return WORD * channels * pixels_of(shape, level)
    return WORD * tokens_of(shape) * shape.hidden_size


def states(shape: Shape, blocks: Blocks) -> float:
    """Bytes of what enters each block."""
    return sum(hidden(shape, block) for block in blocks)


def passing(shape: Shape) -> float:
    """Bytes that a pass without gradients holds at its peak, which a transformer has in the MLP, around GELU."""
    if isinstance(shape, UNetArchitecture):
        return 6 * max(hidden(shape, block) for block in range(shape.depth))
    return hidden(shape, 0) * (3 + 2 * mlp_width(shape) / shape.hidden_size)


def largest_layer(shape: Shape) -> int:
    """The number of weights of the largest layer of a block."""
    if isinstance(shape, UNetArchitecture):
        return 9 * max(place.channels for place in places(shape)) ** 2
    return shape.hidden_size * max(6 * shape.hidden_size, mlp_width(shape))
