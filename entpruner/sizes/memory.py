"""Estimates of the GPU memory of a command, from the sizes in a study. No GPU has tested them yet.

They count weights, other tensors of the size of the weights, and the activations that a pass needs at its peak. For a
block of a transformer these are the arrays that autograd keeps, and a test compares them with autograd in float32. The
other numbers are rules of thumb: ``SLACK`` for the fragments of the allocator, ``OVERHEAD`` for the buffers of
libraries, and the arrays of U-Nets and feature nets. Of a transformer of diffusers, what its layers return is counted.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

from entpruner.models.arithmetic import block_layers, counted, mlp_width, parameters_of, pixels_of, places, tokens_of
from entpruner.params.arms import Criterion
from entpruner.params.audit import AuditedProxies
from entpruner.params.backbones import Architecture, Shape, UNetArchitecture
from entpruner.params.compute import Compute
from entpruner.params.criteria import cost_of
from entpruner.params.evaluation import ClassifierTraining, Evaluation
from entpruner.params.latents import Latents
from entpruner.params.proxies import Ntk, Proxies, Zico
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.stock import StockArchitecture
from entpruner.params.training import Finetuning, Training
from entpruner.sizes.nets import AUTOENCODER_PARAMETERS
from entpruner.sizes.work import KEPT, WORD

GIB = 2**30
HALF = 2  # bytes of a bfloat16
SLACK = 1.1
OVERHEAD = GIB
FEATURE_NET = 25e6  # bytes for each image of 299 pixels in a large feature net
CODED = {"kl": 300e6, "tiny": 100e6}  # bytes for each image of 256 pixels in an autoencoder
UNET_ARRAYS = 12  # the number of arrays, each of the size of the output, that the training of a U-Net's block keeps

Blocks = Collection[int]


class Memory(NamedTuple):
    """The memory that a command needs on one GPU at its peak."""

    fixed: float
    """Bytes that do not depend on the batch: weights and tensors of their size."""
    an_image: float
    """Bytes for each image that is computed at once."""
    images: int
    """The number of images that are computed at once."""
    setting: str
    """The key of the study that decides about this number."""
    advice: str = ""
    """Other settings that need less memory, as the end of a sentence."""

    @property
    def total(self) -> float:
        return OVERHEAD + SLACK * (self.fixed + self.images * self.an_image)

    def shortage(self, what: str, free: float, gpu: str) -> str | None:
        """The message if this many free bytes on ``gpu`` are too few, or None if they are enough."""
        if self.total <= free:
            return None
        fits = max(0, int(((free - OVERHEAD) / SLACK - self.fixed) / self.an_image))  # images at once
        remedy = f"set {self.setting} to {fits} or less{self.advice}" if fits else f"take a larger GPU{self.advice}"
        return (
            f"{what} needs about {self.total / GIB:.3g} GiB of GPU memory ({self.images} images at once, "
            f"{self.an_image / GIB:.2g} GiB each, and {self.fixed / GIB:.3g} GiB for networks), "
            f"{gpu} has {free / GIB:.3g}: {remedy}"
        )


# ------------------------------------------------------------------------------------------------------ whole commands


def training(shape: Shape, blocks: Blocks, settings: Training, compute: Compute) -> Memory:
    """A training holds weights, their average, AdamW's moments, gradients, activations, and those of a teacher.

    Other optimizers hold less than AdamW.

    Where processes split the state, each holds its part, and the weights and gradients of two blocks and of what lies
    outside the blocks as a whole.
    """
    p, whole = parameters_of(shape, blocks), range(shape.depth)
    tuning = settings if isinstance(settings, Finetuning) else None
    trained = p if tuning is None or tuning.method == "full" else p / 10  # every other method trains less than a tenth
    half = compute.bf16 and compute.device != "cpu"
    weight = WORD + (HALF if half else 0)  # autocast also keeps a copy in bfloat16
    fixed = weight * p + WORD * p + 3 * WORD * trained
    if compute.sharding == "full" and compute.processes > 1:
        outside = parameters_of(shape, ())
        block = max(parameters_of(shape, (block,)) - outside for block in blocks)
        fixed = fixed / compute.processes + 2 * WORD * (outside + 2 * block)
    image = activations(shape, blocks, half=half, checkpointing=compute.gradient_checkpointing)
    if tuning is not None and tuning.distillation is not None:
        fixed += weight * parameters_of(shape, whole)
        image += states(shape, whole) + states(shape, blocks)
    advice = "" if compute.gradient_checkpointing else ", or set compute.gradient_checkpointing"
    if compute.sharding == "none" and compute.processes > 1:
        advice += ", or compute.sharding to full" if advice else ", or set compute.sharding to full"
    images = compute.at_once(settings.batch_size)
    return Memory(fixed, image, images, "compute.micro_batch", f"{advice}, or more compute.gpus")


def proxies(shape: Shape, blocks: Blocks, settings: Proxies) -> Memory:
    """A vote holds the weights twice, passes the samples of both proxies at once, and keeps up to KEPT of insides.

    The candidates follow each other, so they need no more than the one with the most blocks.
    """
    parts = [of_ntk(shape, blocks, settings.ntk), of_zico(shape, blocks, settings.zico)]
    fewer, more = sorted(parts, key=lambda part: part.images * part.an_image)
    beside = KEPT + 2 * WORD * parameters_of(shape, blocks) + fewer.images * fewer.an_image
    return more._replace(fixed=beside + max(fewer.fixed, more.fixed))


def swept(shape: Shape, settings: Proxies, sweeps: AuditedProxies) -> Memory:
    """The audit measures the proxies one after the other, at several sizes, of which the largest needs the most."""
    blocks, beside = range(shape.depth), KEPT + 2 * WORD * parameters_of(shape, range(shape.depth))
    ntk = of_ntk(shape, blocks, settings.ntk.model_copy(update={"samples": max(sweeps.samples)}))
    zico = of_zico(shape, blocks, settings.zico.model_copy(update={"batches": max(sweeps.batches)}))
    parts = ntk._replace(setting="audit.proxies.samples"), zico
    return largest(part._replace(fixed=part.fixed + beside) for part in parts)


def of_ntk(shape: Shape, blocks: Blocks, settings: Ntk) -> Memory:
    """NTK's gradients of one layer, in float64, and its samples: the probes need each of them once."""
    gradients = 2 * WORD * settings.samples * largest_layer(shape, blocks)
    return Memory(gradients, settings.probes * differentiated(shape, blocks), settings.samples, "proxies.ntk.samples")


def of_zico(shape: Shape, blocks: Blocks, settings: Zico) -> Memory:
    """The gradients of one layer for all of ZiCo's batches, with two arrays of their size, and the batches."""
    gradients = 3 * WORD * settings.batches * largest_layer(shape, blocks)
    image = settings.batches * differentiated(shape, blocks)
    return Memory(gradients, image, settings.batch_size, "proxies.zico.batch_size")


def sampling(shape: Shape, blocks: Blocks, settings: Sampling, latents: Latents | None = None) -> Memory:
    """A sampling makes forward passes of a batch, which guidance doubles, and decodes latents."""
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
        image = activations(shape, blocks, half=False) + 3 * states(shape, blocks)  # the masks mix states
        return Memory(2 * weights, image, settings.learned.batch_size, "scoring.learned.batch_size")
    if cost == "samples":
        batch = sampled.model_copy(update={"batch_size": min(settings.ld_pruner_samples, settings.batch_size)})
        needed = sampling(shape, blocks, batch)  # by the network, and by one with a block less
        return needed._replace(fixed=2 * weights, setting="scoring.batch_size")
    predictions = 0
    if criterion == "ced" and settings.estimator in ("low_rank", "knn"):
        predictions = WORD * (1 + len(blocks)) * settings.draws * shape.in_channels * shape.input_size**2
    image = passing(shape) + states(shape, blocks)
    return Memory(2 * weights + predictions, image, settings.batch_size, "scoring.batch_size")


def bench(
    shape: Shape, batch_size: int, compute: Compute, sampled: Sampling | None = None, latents: Latents | None = None
) -> Memory:
    """The audit trains all weights of a sub-network while it keeps the whole network, and may sample from it, too. Then
    the autoencoder of the latents is always in memory.
    """
    whole, beside = range(shape.depth), autoencoder_weights(latents) if latents else 0.0
    trained = training(shape, whole, Training(steps=0, batch_size=batch_size), compute)
    parts = [trained._replace(fixed=trained.fixed + beside)]
    parts += [sampling(shape, whole, sampled, latents)] if sampled else []
    needed = largest(parts)
    return needed._replace(fixed=needed.fixed + WORD * parameters_of(shape, whole))


def timing(shape: Shape, kept: Collection[int], batch_size: int) -> Memory:
    """A measurement of latency has a network for each number of blocks in memory, and runs them in turn."""
    fixed = WORD * sum(parameters_of(shape, range(blocks)) for blocks in kept)
    return Memory(fixed, passing(shape), batch_size, "evaluation.latency_batch_size")


def classifying(settings: ClassifierTraining, image_size: int) -> Memory:
    """The training of a data set's classifier keeps the outputs of its convolutions and their largest gradients."""
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
    """The images pass the largest feature net, a published one or the study's classifier."""
    own = 3 * WORD * settings.classifier.width * image_size**2
    published = any(net.kind in ("inception", "torchvision") for net in settings.extractors.values())
    return Memory(0, FEATURE_NET if published else own, settings.batch_size, "evaluation.batch_size")


def largest(parts: Iterable[Memory]) -> Memory:
    """The part that needs the most, of parts that run one after the other."""
    return max(parts, key=lambda part: part.total)


# ----------------------------------------------------------------------------------------------------------- one image


def activations(shape: Shape, blocks: Blocks, *, half: bool, checkpointing: bool = False) -> float:
    """Bytes that a forward pass keeps for the backward pass, with those of the gradients of one block."""
    if isinstance(shape, UNetArchitecture):
        entering = [hidden(shape, block) for block in blocks]
        return sum(entering) * (1 if checkpointing else UNET_ARRAYS) + UNET_ARRAYS * max(entering)
    if isinstance(shape, StockArchitecture):
        inside = 2.0 * WORD * counted(shape).block.values  # what a layer returns, and what was made of it
    else:
        inside = block_activations(shape, half=half)
    return states(shape, blocks) + 2 * inside if checkpointing else (len(blocks) + 1) * inside


def differentiated(shape: Shape, blocks: Blocks) -> float:
    """Bytes of what enters each block, and of the inside of one block with its gradients."""
    return states(shape, blocks) + activations(shape, list(blocks)[:1], half=False)


def largest_layer(shape: Shape, blocks: Blocks) -> int:
    """The weights of the largest layer."""
    assert not isinstance(shape, StockArchitecture), "the proxies do not know its layers"
    return max(layer.inputs * layer.outputs for block in blocks for layer in block_layers(shape, block))


def block_activations(shape: Architecture, *, half: bool) -> float:
    """Bytes that autograd keeps for one block and image, in float32 or under bfloat16 autocast.

    Under autocast the states and the norms stay in float32, and matrix products have bfloat16 inputs and outputs.
    """
    tokens, d, mlp = tokens_of(shape), shape.hidden_size, mlp_width(shape)
    low = HALF if half else WORD
    norms = 2 * (WORD + WORD + low)  # input, output and modulated output of each norm
    attention = low * (3 + 1 + 1)  # q, k, v; the outputs of the heads and of the projection
    feedforward = low * (2 * mlp / d + 1)  # input and output of GELU; the output of the MLP
    condition = WORD * 10 * d  # adaLN, which an image needs once
    return tokens * d * (norms + attention + feedforward) + WORD * tokens * shape.num_heads + condition


def hidden(shape: Shape, block: int) -> float:
    """Bytes of the state that enters a block, in float32: (T, D), or (K, h, w) in a U-Net."""
    if isinstance(shape, StockArchitecture):
        return float(WORD * counted(shape).state)
    if isinstance(shape, UNetArchitecture):
        level, channels, _ = places(shape)[block]
        return WORD * channels * pixels_of(shape, level)
    return WORD * tokens_of(shape) * shape.hidden_size


def states(shape: Shape, blocks: Blocks) -> float:
    """Bytes of the states that enter these blocks."""
    return sum(hidden(shape, block) for block in blocks)


def passing(shape: Shape) -> float:
    """Bytes of a pass without gradients at its peak. A transformer has its peak in the MLP, at GELU."""
    if isinstance(shape, StockArchitecture):
        return float(WORD * counted(shape).block.values)
    if isinstance(shape, UNetArchitecture):
        return 6 * max(hidden(shape, block) for block in range(shape.depth))
    return hidden(shape, 0) * (3 + 2 * mlp_width(shape) / shape.hidden_size)
