"""What a command needs of a GPU's memory, from the study's sizes: asked before it starts, so that none crashes of it.

Counted: weights, what is of their size, and what a pass keeps or holds at its peak. Of a transformer's block that is
what autograd keeps, array by array; a test holds the count against it in float32. Rules of thumb: ``SLACK`` for what
the allocator leaves in pieces, ``OVERHEAD`` for the libraries' own buffers, the arrays of U-Nets and feature nets. None
of it has been held against a GPU yet.
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

GIB = 2**30
WORD, HALF = 4, 2  # bytes of a float32 and of a bfloat16
SLACK = 1.1
OVERHEAD = GIB
FEATURE_NET = 25e6  # bytes an image of a large feature net, at 299 pixels
AUTOENCODERS = {"kl": (83.7e6, 300e6), "tiny": (2.4e6, 100e6)}  # parameters, and bytes of an image of 256 pixels
UNET_ARRAYS = 12  # of its size, that the training of a U-Net's block keeps

Shape = Architecture | UNetArchitecture
Blocks = Collection[int]


class Memory(NamedTuple):
    """Bytes on one GPU, at the peak."""

    fixed: float
    """Whatever the batch: weights, and all that is of their size."""
    an_image: float
    """For each image that is computed at once."""
    images: int
    """Computed at once."""
    setting: str
    """The key of the study that says how many these are."""
    advice: str = ""
    """What else helps."""

    @property
    def total(self) -> float:
        return OVERHEAD + SLACK * (self.fixed + self.images * self.an_image)

    def fitting(self, free: float) -> int:
        """How many images at once would fit into so many bytes."""
        return max(0, int(((free - OVERHEAD) / SLACK - self.fixed) / self.an_image))

    def shortage(self, what: str, free: float, gpu: str) -> str | None:
        """What to say where only so many bytes are free on ``gpu``; None where they are enough."""
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
    """Weights, their average, and AdamW's; gradients and activations; a teacher's, where there is one."""
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
    """Of a vote: raw weights and a candidate's, ZiCo's gradient and statistics, NTK's gradients of a layer."""
    layer = 2 * WORD * settings.ntk.samples * largest_layer(shape)  # in float64
    fixed, image = 6 * WORD * parameters_of(shape, blocks) + layer, activations(shape, blocks, half=False)
    if settings.ntk.samples > settings.zico.batch_size:
        return Memory(fixed, image, settings.ntk.samples, "proxies.ntk.samples")
    return Memory(fixed, image, settings.zico.batch_size, "proxies.zico.batch_size")


def swept(shape: Shape, settings: Proxies, samples: Collection[int]) -> Memory:
    """Of the audit's proxies: the same at the largest number of samples."""
    ntk = settings.ntk.model_copy(update={"samples": max(samples)})
    needed = proxies(shape, range(shape.depth), settings.model_copy(update={"ntk": ntk}))
    return needed._replace(setting=needed.setting.replace("proxies.ntk", "audit.proxies"))


def sampling(shape: Shape, blocks: Blocks, settings: Sampling, latents: Latents | None = None) -> Memory:
    """A forward pass of a batch, doubled where it is guided; and the decoding of some latents at once."""
    image = passing(shape) * (2 if settings.guidance > 1 else 1)
    coder = coding(latents, latents.factor * shape.input_size) if latents else Memory(0, 0, 0, "")
    fixed = WORD * parameters_of(shape, blocks) + coder.fixed + coder.images * coder.an_image
    return Memory(fixed, image, settings.batch_size, "sampling.batch_size")


def scoring(shape: Shape, criterion: Criterion, settings: Scoring, sampled: Sampling) -> Memory:
    """One criterion on the whole network."""
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
    """Of the audit: all weights of a sub-network are trained beside the network that it was cut from and, where it is
    sampled from as well, beside the autoencoder of its latents."""
    whole, beside = range(shape.depth), autoencoder_weights(latents) if latents else 0.0
    trained = training(shape, whole, Training(steps=0, batch_size=batch_size), compute)
    parts = [trained._replace(fixed=trained.fixed + beside)]
    parts += [sampling(shape, whole, sampled, latents)] if sampled else []
    needed = largest(parts)
    return needed._replace(fixed=needed.fixed + WORD * parameters_of(shape, whole))


def timing(shape: Shape, kept: Collection[int], batch_size: int) -> Memory:
    """Of forward passes in turn: networks with so many blocks each, all there at once."""
    fixed = WORD * sum(parameters_of(shape, range(blocks)) for blocks in kept)
    return Memory(fixed, passing(shape), batch_size, "evaluation.latency_batch_size")


def classifying(settings: ClassifierTraining, image_size: int) -> Memory:
    """Of the training of a data set's own classifier: what its convolutions keep, and their largest gradients."""
    image = WORD * settings.width * image_size**2 * (4 + 2)
    return Memory(0, image, settings.batch_size, "evaluation.classifier.batch_size")


def coding(latents: Latents, image_size: int) -> Memory:
    """Of an autoencoder, either way."""
    image = AUTOENCODERS[latents.kind][1] * (image_size / 256) ** 2
    return Memory(autoencoder_weights(latents), image, latents.batch_size, "latents.batch_size")


def autoencoder_weights(latents: Latents) -> float:
    """Bytes, on the disk as well."""
    return WORD * AUTOENCODERS[latents.kind][0]


def features(settings: Evaluation, image_size: int) -> Memory:
    """Of the largest feature net: a published one's, or the study's own classifier's."""
    own = 3 * WORD * settings.classifier.width * image_size**2
    published = any(net.kind != "classifier" for net in settings.extractors.values())
    return Memory(0, FEATURE_NET if published else own, settings.batch_size, "evaluation.batch_size")


def largest(parts: Iterable[Memory]) -> Memory:
    """Of what does not happen at once."""
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
    """What goes from block to block, in float32: (T, D), or (K, h, w)."""
    if isinstance(shape, UNetArchitecture):
        level, channels, _ = places(shape)[block]
        return WORD * channels * pixels_of(shape, level)
    return WORD * tokens_of(shape) * shape.hidden_size


def states(shape: Shape, blocks: Blocks) -> float:
    """What enters each block."""
    return sum(hidden(shape, block) for block in blocks)


def passing(shape: Shape) -> float:
    """What a pass without gradients holds at its peak: a transformer's in the MLP, before and after GELU."""
    if isinstance(shape, UNetArchitecture):
        return 6 * max(hidden(shape, block) for block in range(shape.depth))
    return hidden(shape, 0) * (3 + 2 * mlp_width(shape) / shape.hidden_size)


def largest_layer(shape: Shape) -> int:
    """Weights of the largest layer of a block."""
    if isinstance(shape, UNetArchitecture):
        return 9 * max(place.channels for place in places(shape)) ** 2
    return shape.hidden_size * max(6 * shape.hidden_size, mlp_width(shape))
