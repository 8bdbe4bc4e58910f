"""A study: what one params file may say, with types, limits and defaults. The one place that knows its keys.

Everything here is frozen and validated; files, overlays and messages are in ``paramfiles.py``, the expansion of arms
and what a rule hands to its command in ``arms.py``. ``params/schema.json`` is exported from these classes.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

T = TypeVar("T")


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a list without repeats")
    return values


Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="letters, digits and underscores")]
Positive = Annotated[int, Field(gt=0)]
Ratio = Annotated[float, Field(gt=0, lt=1, description="share of blocks to remove: above 0, below 1")]
Seed = Annotated[int, Field(ge=0)]
Several = Annotated[  # a list with at least one entry, none of them twice
    tuple[T, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_without_repeats)
]


def blocks_to_remove(depth: int, ratio: float) -> int:
    """How many of ``depth`` blocks a ratio stands for: the nearest whole number (30 % of 28 are 8)."""
    return round(ratio * depth)


def stage_boundaries(stages: int, fraction: float, steps: int) -> tuple[int, ...]:
    """Steps at which stages 1, 2, ... and the recovery begin, then the last step: ``stages`` + 2 numbers.

    The stages share the first ``fraction`` of the steps evenly; with no stage, all is recovery.
    """
    pruned = round(fraction * steps) if stages else 0
    return (*(round(pruned * stage / stages) for stage in range(stages)), pruned, steps)


def removal_grid(total: int, stages: int) -> tuple[int, ...]:
    """Blocks removed after 0, 1, ..., k even steps: k + 1 rising numbers from 0 to ``total``."""
    return tuple(round(stage * total / stages) for stage in range(stages + 1))


def candidate_counts(grid: Sequence[int], removed: int, stage: int, lookahead: int) -> tuple[int, ...]:
    """Block counts that stage 1 ... k may choose from: stay, and up to ``lookahead`` steps on; at last the target."""
    if stage == len(grid) - 1:
        return (grid[-1],)
    return tuple(count for count in grid if count >= removed)[: lookahead + 1]


class Frozen(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


# ------------------------------------------------------------------------------------------------- what others made


class Origin(Frozen):
    """A file that others made, or in some places a folder: on this machine, or to be downloaded."""

    path: str | None = None
    """Where it lies, relative to where the workflow runs."""
    url: str | None = Field(None, pattern=r"^https?://[^/?#\s]+/([^?#\s]*/)?[\w.%+~-]*\w([?]\S*)?$")
    """Where to download it from instead, once: it is kept in data/downloads/. Needs sha256."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum that the file must have."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give path or url, only one of them")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of its file")
        return self

    @property
    def file(self) -> str:
        """Where it lies, or will once it is downloaded: another checksum is another file."""
        if self.path is not None:
            return self.path
        assert self.url is not None and self.sha256 is not None
        name = PurePosixPath(urlsplit(self.url).path).name
        return f"data/downloads/{self.sha256[:12]}/{name}"


def origins(section: Any) -> Iterator[Origin]:
    """All that others made in a part of a study."""
    if isinstance(section, Origin):
        yield section
    if isinstance(section, BaseModel):
        section = {key: getattr(section, key) for key in type(section).model_fields}
    for value in section.values() if isinstance(section, dict) else ():
        yield from origins(value)


# ---------------------------------------------------------------------------------------------------------- datasets


class Digits(Frozen):
    """scikit-learn's 8x8 handwritten digits: 1,797 real images inside the package, nothing to download."""

    image_size: ClassVar[int] = 8
    channels: ClassVar[int] = 1

    source: Literal["digits"]
    classes: Several[Annotated[int, Field(ge=0, le=9)]] = tuple(range(10))
    """The digits to keep; they are relabelled 0, 1, 2, ... in this order."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is held out for testing."""


class ImageFolder(Origin):
    """A folder, .zip, .tar or .tar.gz of <split>/<class>/*.jpg|png; resized and centre-cropped as ADM does."""

    channels: ClassVar[int] = 3
    top: ClassVar[str | None] = None

    source: Literal["image_folder"]
    image_size: Positive
    """Side of the stored square images, in pixels."""
    train: str = "train"
    """Folder of the split to train on."""
    test: str = "val"
    """Folder of the held-out split."""

    @field_validator("test")
    @classmethod
    def _held_out(cls, test: str, info: ValidationInfo) -> str:
        if test == info.data.get("train"):
            raise ValueError("another folder than train")
        return test


class ArtBench(Origin):
    """ArtBench-10 (Liao et al. 2022): artbench-10-imagefolder-split.tar or its folder, 10 styles of art at 256x256.

    From artbench.eecs.berkeley.edu, for fair use by the words of its authors.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[tuple[int, int, int]] = (50_000, 10_000, 10)  # images in train and in test, classes
    top: ClassVar[str] = "artbench-10-imagefolder-split"
    train: ClassVar[str] = "train"
    test: ClassVar[str] = "test"

    source: Literal["artbench"]
    image_size: Positive
    """Side of the stored square images, in pixels."""


class Cub(Origin):
    """Caltech-UCSD Birds-200-2011 (Wah et al. 2011): CUB_200_2011.tgz or its folder, with its official split.

    From data.caltech.edu; the images are their photographers', for research and teaching that is not commercial.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[tuple[int, int, int]] = (5_994, 5_794, 200)  # images in train and in test, classes

    source: Literal["cub"]
    image_size: Positive
    """Side of the stored square images, in pixels."""


FlowerSplit = Literal["trnid", "valid", "tstid"]


class Flowers(Frozen):
    """Oxford's 102 flowers (Nilsback and Zisserman 2008).

    From www.robots.ox.ac.uk/~vgg/data/flowers/102; the images are from the web, for research, and not to be passed on.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[dict[FlowerSplit, int]] = {"trnid": 1_020, "valid": 1_020, "tstid": 6_149}
    classes: ClassVar[int] = 102

    source: Literal["flowers"]
    images: Origin
    """102flowers.tgz or its folder."""
    labels: Origin
    """imagelabels.mat."""
    splits: Origin
    """setid.mat."""
    image_size: Positive
    """Side of the stored square images, in pixels."""
    train: Several[FlowerSplit] = ("trnid", "valid")
    """Lists of setid.mat to train on. Ours: the paper's choice is unknown."""
    test: Several[FlowerSplit] = ("tstid",)
    """Lists that are held out."""

    @field_validator("test")
    @classmethod
    def _held_out(cls, test: tuple[FlowerSplit, ...], info: ValidationInfo) -> tuple[FlowerSplit, ...]:
        if set(test) & set(info.data.get("train", ())):
            raise ValueError("other lists than train's")
        return test


class ImageNet(Frozen):
    """ImageNet's ILSVRC2012 (Russakovsky et al. 2015). The held-out split is its val: test has no public labels.

    From image-net.org after registration, for research and teaching that is not commercial. An extracted copy whose
    val is sorted into folders of synsets is an image_folder, with the same classes.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[tuple[int, int, int]] = (1_281_167, 50_000, 1000)  # images in train and in test, classes

    source: Literal["imagenet"]
    train: Origin
    """ILSVRC2012_img_train.tar, a tar of a tar a synset, or a folder of a folder a synset."""
    val: Origin
    """ILSVRC2012_img_val.tar, or a folder of its images."""
    devkit: Origin
    """ILSVRC2012_devkit_t12.tar.gz or its folder: the synsets, and the labels of val."""
    image_size: Positive
    """Side of the stored square images, in pixels."""


Dataset = Annotated[
    Digits | ImageFolder | ImageNet | Cub | Flowers | ArtBench,
    Field(discriminator="source"),
]

# ----------------------------------------------------------------------------------------------------------- latents


class Autoencoder(Frozen):
    """An image autoencoder of diffusers', trained elsewhere. Networks work on its latents, evaluation on pixels."""

    folder: str | None = None
    """Where it lies as diffusers saves it: config.json and diffusion_pytorch_model.safetensors."""
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Or its id on the Hugging Face hub: stabilityai/sd-vae-ft-ema."""
    revision: str = "main"
    """Commit, tag or branch on the hub. Of these a commit alone stays what it is."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum that its weights must have."""
    channels: Positive = 4
    """Of a latent."""
    factor: Positive = 8
    """An image's side over its latent's."""
    mirror: bool = True
    """Keep the latents of mirror images too, which ``horizontal_flip`` needs: a flipped latent is none of its own."""
    batch_size: Positive = 32
    """Images that are encoded, or decoded, at once."""
    shards: Positive = 1
    """Jobs that encode a data set side by side."""
    scale: float
    """What networks see is a latent times this."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give folder or hub, one of them")
        return self

    @property
    def views(self) -> Literal[1, 2]:
        """What is encoded: an image, or it and its mirror image."""
        return 2 if self.mirror else 1


class KlAutoencoder(Autoencoder):
    """AutoencoderKL (Stable Diffusion's VAE): a latent is a draw from an image's posterior."""

    moments: ClassVar[Literal[1, 2]] = 2
    """Kept of a latent: mean and standard deviation."""
    kind: Literal["kl"]
    scale: float = Field(0.18215, gt=0)
    """What networks see is a latent times this; DiT's and SiT's."""


class TinyAutoencoder(Autoencoder):
    """AutoencoderTiny (TAESD): small and fast. It has no posterior; an image has one latent."""

    moments: ClassVar[Literal[1, 2]] = 1
    kind: Literal["tiny"]
    scale: float = Field(1.0, gt=0)
    """What networks see is a latent times this; these have about unit variance as they are."""


Latents = Annotated[KlAutoencoder | TinyAutoencoder, Field(discriminator="kind")]

# --------------------------------------------------------------------------------------------------------- backbones


class Architecture(Frozen):
    """A transformer's shape, as stored beside its weights."""

    depth: Positive
    hidden_size: Positive
    num_heads: Positive
    patch_size: Positive
    input_size: Positive
    in_channels: Positive
    num_classes: Positive
    mlp_ratio: float = Field(4.0, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads and of 4")
        if self.input_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide the image size {self.input_size}")
        return self


class UNetShape(Frozen):
    """A small U-Net. It is scored and audited, beside the transformers; arms are the transformers' alone."""

    channels: int = Field(16, gt=0, multiple_of=8)
    """At the first level; GroupNorm has 8 groups. With 16, a step costs about what one of the digits study does."""
    multipliers: tuple[Positive, ...] = Field((1, 2), min_length=1)
    """Channels of each level as multiples of ``channels``; each level has half the side of the one before."""
    blocks_per_level: Positive = 3
    """In the encoder, and again in the decoder."""
    middle_blocks: int = Field(2, ge=0)

    @property
    def depth(self) -> int:
        """Blocks of the unpruned network."""
        return 2 * len(self.multipliers) * self.blocks_per_level + self.middle_blocks


class UNetArchitecture(UNetShape):
    """The same, as stored beside its weights."""

    input_size: Positive
    in_channels: Positive
    num_classes: Positive

    @model_validator(mode="after")
    def _fits(self) -> Self:
        halvings = len(self.multipliers) - 1
        if self.input_size % 2**halvings:
            raise ValueError(f"{halvings + 1} levels need an image size that 2**{halvings} divides")
        return self


class Diffusion(Frozen):
    """DDPM with learned variance (DiT): integer t, linear betas, the network predicts noise and variance."""

    kind: Literal["diffusion"] = "diffusion"
    timesteps: int = Field(1000, ge=2)


class Flow(Frozen):
    """Flow matching (SiT): t from 0 (noise) to 1 (data), the network predicts the velocity."""

    kind: Literal["flow"] = "flow"
    interpolant: Literal["linear", "gvp"] = "linear"


ProcessSettings = Annotated[Diffusion | Flow, Field(discriminator="kind")]

SIZES = {  # Table 1 of the DiT paper: depth, hidden size, heads
    "S": (12, 384, 6),
    "B": (12, 768, 12),
    "L": (24, 1024, 16),
    "XL": (28, 1152, 16),
}

TrainedWeights = Literal["ema", "model"]


class Checkpoint(Origin):
    """Trained weights in the form that DiT and SiT publish, which a backbone has instead of being pre-trained here."""

    weights: TrainedWeights | None = None
    """Which weights of a training checkpoint are taken; without it the average, if the file has one."""


class Backbone(Frozen):
    """A network and its process: a transformer by the paper's name (``preset: DiT-XL/2``) or by explicit sizes, or a
    U-Net."""

    process: ProcessSettings
    preset: str | None = Field(None, pattern=r"^(DiT|SiT)-(S|B|L|XL)/[1-9][0-9]*$")
    """DiT-XL/2, SiT-S/4, ...; stands for depth, hidden_size, num_heads and patch_size."""
    depth: Positive | None = None
    hidden_size: Positive | None = None
    num_heads: Positive | None = None
    patch_size: Positive | None = None
    unet: UNetShape | None = None
    checkpoint: Checkpoint | None = None
    """Published weights of a transformer, of any classes: the backbone is not pre-trained."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        sizes = (self.depth, self.hidden_size, self.num_heads, self.patch_size)
        named = [way for way in (self.preset, self.unet) if way is not None]
        if not named and None in sizes:
            raise ValueError("give preset, or unet, or all of depth, hidden_size, num_heads and patch_size")
        if len(named) + (sizes != (None,) * 4) > 1:
            raise ValueError("give preset, unet or explicit sizes, only one of them")
        if self.unet is not None and self.checkpoint is not None:
            raise ValueError("a U-Net has no published checkpoint; remove checkpoint, or give a preset")
        return self

    def architecture(self, input_size: int, in_channels: int, num_classes: int) -> Architecture | UNetArchitecture:
        """The network for images of (in_channels, input_size, input_size) in ``num_classes`` classes."""
        kind = Architecture if self.unet is None else UNetArchitecture
        return kind(input_size=input_size, in_channels=in_channels, num_classes=num_classes, **self.shape)

    @property
    def blocks(self) -> int:
        """Of the unpruned network."""
        return self.shape["depth"] if self.unet is None else self.unet.depth

    @property
    def shape(self) -> dict[str, Any]:
        """The U-Net's keys; or depth, hidden_size, num_heads and patch_size, a preset resolved."""
        if self.unet is not None:
            return self.unet.model_dump()
        if self.preset is not None:
            size, patch = self.preset.split("-")[1].split("/")
            values: tuple[Any, ...] = (*SIZES[size], int(patch))
        else:
            values = (self.depth, self.hidden_size, self.num_heads, self.patch_size)
        return dict(zip(("depth", "hidden_size", "num_heads", "patch_size"), values, strict=True))


# ---------------------------------------------------------------------------------------------------------- training


class Training(Frozen):
    """AdamW on the process's own loss. Budgets are in optimizer steps."""

    steps: int = Field(ge=0)
    """Optimizer steps of the whole run, all stages and the recovery together."""
    batch_size: Positive = 64
    learning_rate: float = Field(1e-4, gt=0)
    warmup_steps: int = Field(0, ge=0)
    """Steps over which the learning rate rises linearly from 0; at most all of them."""
    decay: Literal["constant", "cosine"] = "constant"
    """What the learning rate does after the warm-up; cosine ends at 0."""
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global gradient norm."""
    label_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of labels replaced by the null class, which guidance needs."""
    horizontal_flip: bool = False
    """Mirror each image with probability 1/2."""
    ema_half_life: float = Field(0.1, gt=0, le=1)
    """Half-life of the weight average, as a share of the stage (or run) that it averages over."""
    log_every: Positive = 20
    """Steps between two points of the training curve."""
    checkpoint_every: Positive = 100
    """Steps between two checkpoints, which a killed run goes on from."""

    @field_validator("warmup_steps")
    @classmethod
    def _warm_in_time(cls, warmup_steps: int, info: ValidationInfo) -> int:
        steps = info.data.get("steps")
        if steps is not None and warmup_steps > steps:
            raise ValueError(f"at most steps, which is {steps}")
        return warmup_steps


class Lora(Frozen):
    """Low-rank updates of every linear layer of the blocks (Hu et al. 2022); merged into the weights afterwards."""

    rank: Positive = 8
    alpha: float = Field(8.0, gt=0)
    """The update is scaled by alpha / rank."""


class Distillation(Frozen):
    """Learning from the network before pruning, beside the data (TinyFusion's masked knowledge distillation)."""

    output: float = Field(0.9, ge=0, le=1)
    """Weight of the distance to the teacher's output; the data's own loss has the rest."""
    features: float = Field(0.01, ge=0)
    """Weight of the distance between the hidden states after each kept block and the teacher's after the same block."""
    cut: float = Field(2.0, gt=0)
    """Hidden states further than this many standard deviations from their mean (massive activations) do not count."""


Method = Literal["full", "bitfit", "lora", "difffit", "adapters"]


class Finetuning(Training):
    """The training of an arm, pruned or not."""

    method: Method = "full"
    """Which weights are trained; all but full belong to arms that are not pruned."""
    lora: Lora = Lora()
    adapter_width: Positive = 8
    """Hidden width of the adapters (Houlsby et al. 2019) behind attention and MLP."""
    distillation: Distillation | None = None


# --------------------------------------------------------------------------------------------------- scores, proxies


class LearnedMask(Frozen):
    """TinyFusion's search: a mask a group of blocks, by Gumbel-softmax, with LoRA on the rest."""

    steps: Positive = 200
    batch_size: Positive = 64
    groups: Positive = 2
    """Groups of consecutive blocks, each of which loses its share of the blocks."""
    mask_learning_rate: float = Field(3e-3, gt=0)
    """Of the logits, before they are scaled."""
    learning_rate: float = Field(1e-3, gt=0)
    """Of the LoRA weights, which are thrown away afterwards."""
    temperature: tuple[float, float] = (4.0, 0.1)
    """Of the Gumbel-softmax, at the first and at the last step."""
    scale: float = Field(100.0, gt=0)
    """What the logits are multiplied by."""
    lora: Lora = Lora()


class Scoring(Frozen):
    """How blocks are scored."""

    draws: Positive = 1024
    """Draws (x0, y, t, noise), t stratified; one fixed set for all blocks. The paper's number is unknown."""
    batch_size: Positive = 256
    estimator: Literal["scalar", "diagonal", "low_rank", "knn"] = "scalar"
    """Gaussian with one variance for all elements (the paper's), one a coordinate, or a low-rank covariance; or no
    Gaussian: Kozachenko-Leonenko's nearest neighbours on random projections."""
    rank: Positive = 16
    """Directions with a variance of their own in ``low_rank``, the others share one; takes rank + 2 draws or more."""
    projections: Positive = 8
    """Random subspaces that ``knn`` averages over."""
    dimensions: Positive = 4
    """Dimension of each of them."""
    neighbours: Positive = 8
    """Which neighbour's distance ``knn`` takes, of neighbours + 1 draws or more: a nearer one scatters more, a farther
    one smooths more."""
    reduction: Literal["pooled", "timestep", "class"] = "pooled"
    """Entropy of all draws together, or the mean over timestep bins, or over classes."""
    bins: Positive = 8
    """Timestep bins."""
    ld_pruner: Literal["sampling", "one_step"] = "sampling"
    """LD-Pruner's latents: fully sampled ones, or one-step predictions from the same draws."""
    ld_pruner_samples: Positive = 64
    """Latents a block, for the sampling form."""
    block_influence: Literal["noised", "clean"] = "noised"
    """Hidden states of noised inputs over all timesteps, or TinyFusion's clean latents at its small timesteps."""
    trial: int = Field(0, ge=0)
    """Another draw of the criteria that draw lots: random and random_median."""
    masks: Positive = 100
    """Random masks of which random_median takes the one with the median calibration loss."""
    loss_threshold: float = Field(0.05, ge=0, lt=1)
    """diff_pruning leaves out timesteps whose loss is below this share of the largest."""
    learned: LearnedMask = LearnedMask()


class Ntk(Frozen):
    """NTK condition number."""

    samples: int = Field(16, ge=2)
    """Samples N: the Gram matrix is N x N."""
    functional: Literal["sum", "projection"] = "sum"
    """Scalar of the output whose per-sample gradients are taken: the sum (AutoProg-Zero) or random signs."""
    projections: Positive = 4
    """Random sign vectors of the ``projection`` functional."""


class Zico(Frozen):
    """ZiCo: gradient mean over spread across batches."""

    batches: int = Field(8, ge=8)
    """D; below 8 the ratio is seed noise."""
    batch_size: Positive = 16
    reduction: Literal["sum", "mean"] = "sum"
    """Over layers: the published sum, which grows with depth, or the mean."""


class Proxies(Frozen):
    """Training-free predictors that vote on a sub-network."""

    ntk: Ntk = Ntk()
    zico: Zico = Zico()


class VoteWeights(Frozen):
    """Weight of each proxy's rank in the vote. The paper weighs both alike."""

    ntk: float = Field(1.0, ge=0)
    zico: float = Field(1.0, ge=0)

    @model_validator(mode="after")
    def _somebody_votes(self) -> Self:
        if self.ntk == self.zico == 0:
            raise ValueError("at least one proxy must have a weight above 0")
        return self


class Pruning(Frozen):
    """When and how much is pruned."""

    stages: Positive = 4
    """k: pruning decisions, equally spaced over the pruning part of the run."""
    fraction: float = Field(0.5, gt=0, le=1)
    """Share of the run's steps that the stages take; the rest is recovery. Ours: the paper's is unknown."""
    lookahead: Positive = 2
    """How many grid steps further than "stay" a vote may go."""
    weights: VoteWeights = VoteWeights()
    tie: Literal["more", "fewer"] = "more"
    """Which candidate wins a tied vote: the one that prunes more, or fewer."""
    rerank: bool = False
    """Score the blocks again at every stage after the first, on the network as it then is."""


# -------------------------------------------------------------------------------------------------------- evaluation


class DiffusionSampler(Frozen):
    name: Literal["ddpm", "ddim"] = "ddpm"
    steps: Positive = 250
    """Timesteps kept of the schedule; one network evaluation each."""


class FlowSampler(Frozen):
    name: Literal["euler", "heun", "dopri5", "sde"] = "dopri5"
    steps: Positive = 50
    """Steps of the grid from t=0 to 1 (Heun evaluates twice a step; dopri5 chooses its own)."""
    atol: float = Field(1e-6, gt=0)
    rtol: float = Field(1e-3, gt=0)
    """Tolerances of dopri5."""


class Sampling(Frozen):
    """How images are sampled for evaluation: the same noise for every arm of a seed."""

    samples: Positive = 1000
    batch_size: Positive = 250
    guidance: float = Field(1.5, ge=1)
    """Classifier-free guidance scale; 1 is none."""
    guided_channels: Positive = 3
    """Channels that guidance acts on: the official samplers guide the first 3 only."""
    diffusion: DiffusionSampler = DiffusionSampler()
    flow: FlowSampler = FlowSampler()


class ClassifierExtractor(Frozen):
    """A small classifier that the pipeline trains on the data set itself."""

    kind: Literal["classifier"]


class TorchvisionExtractor(Frozen):
    """Any torchvision classifier; its features are what its last linear or convolutional classifier layer sees."""

    kind: Literal["torchvision"]
    model: str
    """Name in torchvision.models: squeezenet1_0, resnet50, ..."""
    weights: str
    """A .safetensors file, or a state dict that loads with weights_only."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class InceptionExtractor(Frozen):
    """torch-fidelity's inception-v3-compat: the only one whose distance is called FID."""

    kind: Literal["inception"]
    weights: str | None = None
    """A local weights file; without it torch-fidelity downloads its own."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


Extractor = Annotated[
    ClassifierExtractor | TorchvisionExtractor | InceptionExtractor,
    Field(discriminator="kind"),
]


class ClassifierTraining(Frozen):
    """The small classifier of the study's own data."""

    steps: Positive = 600
    batch_size: Positive = 64
    learning_rate: float = Field(2e-3, gt=0)
    width: Positive = 32
    features: Positive = 64
    """Width of the layer whose activations are the features."""


class Evaluation(Frozen):
    """What the images are measured with."""

    extractors: dict[Name, Extractor] = {"classifier": ClassifierExtractor(kind="classifier")}
    """Feature nets by name; the first is the one that tables show."""
    batch_size: Positive = 256
    kid_subsets: Positive = 100
    kid_subset_size: Positive = 100
    neighbours: Positive = 3
    """k of precision and recall."""
    manifold_images: Positive = 10_000
    """Images of each side that precision and recall see, drawn at random where there are more: what they cost grows
    with the square. ADM's evaluator sees 10,000 real ones."""
    latency_batch_size: Positive = 64
    latency_repeats: int = Field(20, ge=5)
    classifier: ClassifierTraining = ClassifierTraining()

    @model_validator(mode="after")
    def _feature_nets(self) -> Self:
        if not self.extractors:
            raise ValueError("extractors needs at least one feature net")
        if sum(extractor.kind == "inception" for extractor in self.extractors.values()) > 1:
            raise ValueError("extractors may hold one inception net only: its distance is the one called FID")
        return self


class Compute(Frozen):
    """Where and how it runs; part of a result's record."""

    AT_WILL: ClassVar[frozenset[str]] = frozenset(
        ("gpus", "nodes", "micro_batch", "gradient_checkpointing", "compile", "gpu_memory")
    )
    """Keys that change how the same numbers are computed, to rounding: a killed run may go on with others."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Positive = 1
    """CPU threads of a process: other counts round differently."""
    bf16: bool = True
    """bfloat16 autocast of trainings where the device is CUDA. Sampling multiplies in TF32, as the official samplers;
    scores, proxies and feature nets in full float32."""
    gpus: Positive = 1
    """Of a training, a sampling or an evaluation, on each of its nodes: one process each. With ``device: cpu``, so many
    processes. They share each batch, which they must divide."""
    nodes: Positive = 1
    """Of the same commands: above 1 they need ``srun``, as the workflow gives them under SLURM."""
    micro_batch: Positive | None = None
    """Images that a process trains on at once; the gradients of several such pieces add up to its share of a batch.
    Without it, its whole share."""
    gradient_checkpointing: bool = False
    """In training keep only what enters each block, and compute its inside again for the backward pass: a fraction of
    the memory, for a third more time."""
    compile: bool = False
    """torch.compile the blocks of the networks that are trained and sampled; once, as they are all alike."""
    gpu_memory: float | None = Field(None, gt=0)
    """GiB of each GPU that the study is meant for. The workflow then says at its start if something does not fit;
    without it each command asks the GPU that it runs on."""

    @property
    def processes(self) -> int:
        """Of a command that several can share."""
        return self.gpus * self.nodes

    @property
    def alone(self) -> Self:
        """The same for a command that one process runs."""
        return self.model_copy(update={"gpus": 1, "nodes": 1})

    def at_once(self, batch_size: int) -> int:
        """Images of a batch that a process trains on at once."""
        share = batch_size // self.processes
        return min(self.micro_batch or share, share)

    def in_pieces(self, batch_size: int) -> bool:
        """Whether a process trains on its share of a batch in several pieces."""
        return self.at_once(batch_size) * self.processes < batch_size


# ------------------------------------------------------------------------------------------------------ arms, tables

Criterion = Literal[
    "ced", "ld_pruner", "sensitivity", "taylor", "diff_pruning", "magnitude", "block_influence", "similarity_mse",
    "learned", "random", "random_median", "every_other", "first", "last",
]  # fmt: skip
SIZED: tuple[Criterion, ...] = ("learned", "random_median", "every_other")
"""Criteria that choose a set of a given size: their order is of use for that size only."""
TRANSFORMERS_ONLY: tuple[Criterion, ...] = ("learned",)
"""Criteria that cannot score a U-Net: their masks mix tokens."""
Schedule = Literal["none", "one_shot", "linear", "vote", "random_vote"]


class Override(Frozen):
    """Keys of the study's sections that an arm changes; each is merged over the section."""

    scoring: dict[str, Any] = {}
    proxies: dict[str, Any] = {}
    pruning: dict[str, Any] = {}
    finetune: dict[str, Any] = {}
    sampling: dict[str, Any] = {}


class ArmSpec(Frozen):
    """One row, or a grid of rows: where a list is given, one arm each."""

    label: str
    """What the tables call it."""
    backbone: Name | Several[Name]
    data: Name | Several[Name]
    schedule: Schedule = "none"
    criterion: Criterion | None = None
    ratio: Ratio | Several[Ratio] | None = None
    seeds: Several[Seed] | None = None
    """Instead of the study's."""
    start: Literal["adapted", "pretrained"] = "adapted"
    """Where the arm begins: at the network that ``adapt`` made, or at the pre-trained one with a new label table."""
    override: Override = Override()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        pruned = self.schedule != "none"
        if pruned and (self.criterion is None or self.ratio is None):
            raise ValueError(f"schedule {self.schedule} needs a criterion and a ratio")
        if not pruned and (self.criterion is not None or self.ratio is not None):
            raise ValueError("criterion and ratio need a schedule: one_shot, linear, vote or random_vote")
        return self


class Only(Frozen):
    """Which part of the arms' grids to show: all of it where nothing is said."""

    backbone: Several[Name] | None = None
    data: Several[Name] | None = None
    ratio: Several[Ratio] | None = None
    """Unpruned arms, which have no ratio, are shown anyway."""
    seed: Several[Seed] | None = None


ColumnName = Literal[
    "distance_before", "distance", "over_floor", "inception_score", "kid", "precision", "recall", "agreement",
    "trained_parameters", "parameters", "macs", "speedup", "steps", "training_flops", "training_seconds",
]  # fmt: skip


class Table(Frozen):
    caption: str
    arms: Several[Name]
    """Names of arms, in the order of the rows."""
    only: Only = Only()
    columns: Several[ColumnName] = (
        "distance", "over_floor", "kid", "precision", "recall", "agreement",
        "parameters", "macs", "speedup", "steps", "training_flops",
    )  # fmt: skip
    """What is shown of each arm, from left to right."""


class ScoresFigure(Frozen):
    """Entropy change against loss change on removal, a point a block (the paper's Figure 2); or CED block by block,
    with sign and error bar; or block by timestep bin."""

    kind: Literal["entropy_vs_loss", "ced_by_block", "ced_by_timestep"]
    caption: str
    data: Name
    backbones: Several[Name]


class ArmsFigure(Frozen):
    """Training curves with the stages marked (Figure 8), samples side by side from the same noise, the blocks that
    each arm kept, or the distance against the ratio."""

    kind: Literal["curves", "samples", "kept_blocks", "distance_vs_ratio"]
    caption: str
    arms: Several[Name]
    only: Only = Only()


Figure = Annotated[ScoresFigure | ArmsFigure, Field(discriminator="kind")]


# ------------------------------------------------------------------------------------------------------------- audit


class Regime(Frozen):
    """How much is pruned in the audit, and how long is recovered."""

    ratio: Ratio
    steps: Positive
    """Of recovery: the study's finetune, shrunk."""


class RegimeTrials(Frozen):
    """The audit's regime is chosen before any criterion is looked at: the first candidate in which random masks differ
    enough, or failing that the one in which they differ most."""

    candidates: Several[Regime]
    """From mild to hard."""
    masks: int = Field(8, ge=3)
    """Random masks that each candidate is tried with."""
    repeats: int = Field(2, ge=2)
    """Independent recoveries of each."""
    share: float = Field(0.8, gt=0, lt=1)
    """Share of the variance of the log distance that must lie between masks, not between recoveries of one. At 0.8
    masks spread twice as far as recoveries."""


class AuditedCriterion(Frozen):
    """A criterion with settings of its own."""

    criterion: Criterion
    rank_by: Literal["value", "signed"] = "value"
    """What blocks are ranked by: the score, or the same before its absolute value was taken."""
    scoring: dict[str, Any] = {}
    """Keys of the study's scoring section that it changes."""


class AuditedProxies(Frozen):
    """NTK and ZiCo of many sub-networks, and their noise."""

    samples: Several[Annotated[int, Field(ge=2)]] = (4, 8, 16, 32)
    """NTK's N, each."""
    batches: Several[Annotated[int, Field(ge=8)]] = (8, 16, 32)
    """ZiCo's D, each."""
    repeats: int = Field(3, ge=2)
    """Independent draws of samples and batches."""
    chains: int = Field(8, ge=5)
    """Random orders of the blocks, along each of which sub-networks of several depths are nested."""
    ratios: Several[Ratio] = (0.25, 0.5, 0.75)
    """Depths along a chain: shares of blocks removed."""


class AuditedSchedules(Frozen):
    """The schedules, and the weights of the vote, in two regimes: the audit's own, and one of the paper's ratios with
    the study's whole fine-tuning."""

    ratio: Ratio = 0.5
    weights: Several[Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """NTK's weights in the vote; ZiCo has the rest of 1. 0.5 must be among them: the others are held against it."""

    @field_validator("weights")
    @classmethod
    def _with_equal(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if 0.5 not in weights:
            raise ValueError("a list with 0.5 in it, which the other weights are compared with")
        return weights


class AuditedStability(Frozen):
    """How often CED ranks the blocks again."""

    draws: Several[Positive] = (64, 256, 1024, 4096)
    """Numbers of draws N; the study's own is ranked anyway."""
    repeats: int = Field(3, ge=2)
    """Independent sets of draws, each."""


class Audit(Frozen):
    """What score, proxies and schedule are worth (``make audit``)."""

    seeds: Annotated[Several[Annotated[int, Field(ge=0)]], Field(min_length=3)] = (0, 1, 2)
    """Each with a backbone trained from nothing; at least three, for the intervals."""
    backbones: Several[Name]
    """Transformers and U-Nets; on a U-Net what knows transformers alone is left out: proxies, and some criteria."""
    data: Name
    samples: Positive = 240
    """Images a distance is measured on."""
    masks: int = Field(30, ge=5)
    """Random sets of blocks of the regime's size; all there are, if these are fewer."""
    regime: RegimeTrials
    criteria: dict[Name, AuditedCriterion] = Field(min_length=1)
    proxies: AuditedProxies = AuditedProxies()
    schedules: AuditedSchedules = AuditedSchedules()
    stability: AuditedStability = AuditedStability()

    def criteria_for(self, backbone: Backbone) -> dict[str, AuditedCriterion]:
        """Those that can score it."""
        barred = () if backbone.unet is None else TRANSFORMERS_ONLY
        return {name: audited for name, audited in self.criteria.items() if audited.criterion not in barred}


LabelTable = Literal["new", "first_rows"]


class Study(Frozen):
    """One params file."""

    study: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the study and of its folder under results/."""
    seeds: Several[Seed] = (0,)
    """Every arm runs once a seed, unless it names its own."""
    datasets: dict[Name, Dataset]
    """upstream: what the backbones are pre-trained on; any others: what they may be moved to."""
    latents: Latents | None = None
    """The autoencoder whose latents the networks work on; without one they work on pixels."""
    backbones: dict[Name, Backbone]
    pretrain: Training
    adapt: Training
    """From upstream to another data set, before scoring: new labels and these steps, shared by all arms."""
    label_table: LabelTable = "new"
    """What a network that moves to other classes begins with: a new label table; or the first rows of its old one and
    the old row of "no class", as the authors' earlier code did, which kept ImageNet's table."""
    finetune: Finetuning
    """Budget of every arm, pruned or not."""
    scoring: Scoring = Scoring()
    proxies: Proxies = Proxies()
    pruning: Pruning = Pruning()
    sampling: Sampling = Sampling()
    evaluation: Evaluation = Evaluation()
    compute: Compute = Compute()
    arms: dict[Name, ArmSpec]
    tables: dict[Name, Table] = {}
    figures: dict[Name, Figure] = {}
    audit: Audit | None = None

    def input_shape(self, data: str) -> tuple[int, int]:
        """Channels and side of what networks see of a data set: of its pixels, or of their latents."""
        images = self.datasets[data]
        if self.latents is None:
            return images.channels, images.image_size
        return self.latents.channels, images.image_size // self.latents.factor


class OwnModel(Frozen):
    """What ``entpruner score``, ``prune`` and ``sample`` do with one's own model and images: sections as a study's."""

    seed: Seed = 0
    latents: Latents | None = None
    """The autoencoder whose latents the model works on, if it does, as the official ones do."""
    label_table: LabelTable = "new"
    """What the model begins with if it does not know the images' classes; see Study."""
    adapt: Training = Training(steps=5000)
    """Training on the images before scoring, if the model does not know their classes."""
    finetune: Finetuning = Finetuning(steps=10_000)
    """All training from the first pruning stage on."""
    scoring: Scoring = Scoring()
    proxies: Proxies = Proxies()
    pruning: Pruning = Pruning()
    sampling: Sampling = Sampling(samples=16, batch_size=16)
    compute: Compute = Compute()


# ------------------------------------------------------------------------------- what no single section can know alone


class Problem(NamedTuple):
    """Something wrong in a params file."""

    loc: tuple[str | int, ...]
    """Key path."""
    given: Any
    allowed: str
    choices: tuple[str, ...] = ()
    """The names to choose from, if there are such."""
    needs: tuple[tuple[str | int, ...], ...] = ()
    """Other key paths that must be sound for this to be a problem at all."""


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """``overlay`` laid over ``base``: nested mappings merge, anything else is replaced, as with --configfile."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


def problems(study: Study) -> Iterator[Problem]:
    """Where the sections of a study contradict each other. Overrides of arms must be valid in themselves."""
    if "upstream" not in study.datasets:
        yield Problem(("datasets", "upstream"), None, "the backbones are pre-trained on a data set of this name")
    yield from _unknown_names(study)
    if study.latents:
        yield from _unfit_for_latents(study, study.latents)
    yield from _misfits(study)
    yield from _foreign_shapes(study)
    yield from _unshared_batches(study)
    for name, arm in study.arms.items():
        for backbone in listed(arm.backbone):
            if backbone in study.backbones:
                yield from _impossible_arm(study, name, arm, backbone)
    if study.audit:
        yield from _impossible_audit(study, study.audit)


def listed(value: Any) -> tuple[Any, ...]:
    """One value or several, as several."""
    return value if isinstance(value, tuple) else (value,)


def _unknown_names(study: Study) -> Iterator[Problem]:
    said: list[tuple[tuple[str | int, ...], Any]] = []  # (where, one name or several)
    for name, arm in study.arms.items():
        said += [(("arms", name, key), getattr(arm, key)) for key in ("backbone", "data")]
    said += [(("tables", name, "arms"), table.arms) for name, table in study.tables.items()]
    for name, figure in study.figures.items():
        keys = ("data", "backbones") if isinstance(figure, ScoresFigure) else ("arms",)
        said += [(("figures", name, key), getattr(figure, key)) for key in keys]
    if study.audit:
        said += [(("audit", key), getattr(study.audit, key)) for key in ("backbones", "data")]
    shown = [("tables", name, table.only) for name, table in study.tables.items()]
    shown += [
        ("figures", name, figure.only) for name, figure in study.figures.items() if isinstance(figure, ArmsFigure)
    ]
    for kind, name, only in shown:
        said += [((kind, name, "only", key), getattr(only, key) or ()) for key in ("backbone", "data")]

    sections = {"data": "datasets", "backbone": "backbones"}
    for loc, value in said:
        section = sections.get(str(loc[-1]), str(loc[-1]))
        known = getattr(study, section)
        for name in listed(value):
            if name not in known:
                allowed = f"a name from {section} ({', '.join(known)})"
                yield Problem(loc, name, allowed, tuple(known), needs=((section, name),))


def _unfit_for_latents(study: Study, latents: Autoencoder) -> Iterator[Problem]:
    """What can't be encoded, or asks for more than latents can give."""
    for name, images in study.datasets.items():
        if images.channels != 3:
            allowed = "RGB images, which the autoencoder of latents takes; or no section latents"
            yield Problem(("datasets", name), f"channels {images.channels}", allowed)
        if images.image_size % latents.factor:
            allowed = f"a multiple of {latents.factor}, which is latents.factor"
            yield Problem(("datasets", name, "image_size"), images.image_size, allowed)
    trainings: dict[tuple[str, ...], dict[str, Any]] = {
        (section,): getattr(study, section).model_dump() for section in ("pretrain", "adapt", "finetune")
    }
    trainings |= {("arms", name, "override", "finetune"): arm.override.finetune for name, arm in study.arms.items()}
    for loc, training in trainings.items():
        if training.get("horizontal_flip") and not latents.mirror:
            allowed = "false; or latents.mirror true, for the latents of mirror images"
            yield Problem((*loc, "horizontal_flip"), True, allowed)
    if study.audit:
        yield Problem(("audit",), "an audit", "none in a study of latents: it measures on the pixels networks work on")


def _misfits(study: Study) -> Iterator[Problem]:
    """Backbones that cannot take the images they are meant for."""
    pairs = set(product(study.backbones, ["upstream"]))
    for arm in study.arms.values():
        pairs.update(product(listed(arm.backbone), listed(arm.data)))
    if study.audit:
        pairs.update(product(study.audit.backbones, [study.audit.data]))
    for backbone, data in sorted(pairs):
        if backbone in study.backbones and data in study.datasets:
            channels, side = study.input_shape(data)
            try:
                study.backbones[backbone].architecture(side, channels, num_classes=1)
            except ValidationError as error:
                allowed = f"sizes that fit the images of {data}: {error.errors()[0]['ctx']['error']}"
                shape = study.backbones[backbone].shape
                yield Problem(("backbones", backbone), shape, allowed, needs=(("latents",),))


def _foreign_shapes(study: Study) -> Iterator[Problem]:
    """Data sets whose images a backbone that was pre-trained upstream cannot take."""
    if "upstream" in study.datasets:
        upstream = study.datasets["upstream"]
        for name, images in study.datasets.items():
            for key in ("image_size", "channels"):
                given, needed = getattr(images, key), getattr(upstream, key)
                if given != needed:
                    allowed = f"{key} {needed} as upstream has, which the backbones are pre-trained on"
                    yield Problem(("datasets", name), f"{key} {given}", allowed, needs=(("datasets", "upstream"),))


def _unshared_batches(study: Study) -> Iterator[Problem]:
    """Batches that the processes cannot share as their training asks."""
    compute, finetune = study.compute, study.finetune.model_dump()
    trainings: dict[tuple[str, ...], dict[str, Any]] = {
        (key,): getattr(study, key).model_dump() for key in ("pretrain", "adapt", "finetune")
    }
    for name, arm in study.arms.items():
        if arm.override.finetune.keys() & {"batch_size", "distillation"}:
            trainings["arms", name, "override", "finetune"] = merge(finetune, arm.override.finetune)
    for loc, training in trainings.items():
        batch_size, teacher = training["batch_size"], training.get("distillation")
        if batch_size % compute.processes:
            allowed = f"a multiple of {compute.processes}: so many processes (compute.gpus times nodes) share it evenly"
            yield Problem((*loc, "batch_size"), batch_size, allowed, needs=(loc[:2], ("compute",)))
        elif teacher is not None and teacher.get("features") != 0 and compute.in_pieces(batch_size):
            allowed = "none with finetune.distillation.features above 0, which compares whole batches of hidden states"
            yield Problem(("compute", "micro_batch"), compute.micro_batch, allowed, needs=(loc[:2], ("compute",)))


def _impossible_arm(study: Study, name: str, arm: ArmSpec, backbone: str) -> Iterator[Problem]:
    def place(section: str, key: str) -> tuple[str, ...]:
        overridden = key in getattr(arm.override, section, {})
        return ("arms", name, "override", section, key) if overridden else (section, key)

    def setting(section: str) -> dict[str, Any]:
        return merge(getattr(study, section).model_dump(), getattr(arm.override, section))

    network, process = study.backbones[backbone], study.backbones[backbone].process
    if network.unet is not None:
        allowed = "a transformer: U-Nets are audited only, as proxies, cost and methods know transformers alone"
        yield Problem(("arms", name, "backbone"), backbone, allowed, needs=(("backbones", backbone),))
        return
    kept = setting("sampling")["diffusion"]["steps"]
    if isinstance(process, Diffusion) and kept > process.timesteps:
        loc = (*place("sampling", "diffusion"), "steps")
        allowed = f"at most the {process.timesteps} timesteps of backbone {backbone}"
        yield Problem(loc, kept, allowed, needs=(("arms", name), ("backbones", backbone), ("sampling",)))

    here = (("arms", name), ("finetune",))
    method = setting("finetune")["method"]
    if arm.schedule != "none" and method != "full":
        allowed = f"full: arm {name} is pruned, and its other weights must be free to make up for it"
        yield Problem(place("finetune", "method"), method, allowed, needs=here)
    if arm.start == "pretrained":
        begin = (("arms", name, "start"), arm.start)
        if arm.schedule != "none":
            yield Problem(*begin, f"adapted: arm {name} is pruned, by scores of the adapted network", needs=here)
        elif setting("finetune")["distillation"] is not None and listed(arm.data) != ("upstream",):
            allowed = f"adapted, or no finetune.distillation for arm {name}: a teacher must know the data's classes"
            yield Problem(*begin, allowed, needs=here)
    pruning, steps = setting("pruning"), setting("finetune")["steps"]
    staged = arm.schedule in ("linear", "vote", "random_vote")
    needs = (("arms", name), ("backbones", backbone), ("pruning",), ("finetune",))
    if staged and pruning["fraction"] * steps < pruning["stages"]:
        share = f"the {steps} steps of finetune times pruning.fraction {pruning['fraction']}"
        allowed = f"at most {share} for arm {name}: a stage takes a step or more"
        yield Problem(place("pruning", "stages"), pruning["stages"], allowed, needs=needs)
    for ratio in listed(arm.ratio) if arm.schedule != "none" else ():
        depth = network.blocks
        removable = blocks_to_remove(depth, ratio)
        if not 0 < removable < depth:
            allowed = f"a ratio that removes 1 to {depth - 1} of the {depth} blocks of {backbone}, not {removable}"
            yield Problem(("arms", name, "ratio"), ratio, allowed, needs=(("backbones", backbone),))
        elif staged and pruning["stages"] > removable:
            allowed = f"no more stages than removable blocks: arm {name} removes {removable} of {depth} ({backbone})"
            yield Problem(place("pruning", "stages"), pruning["stages"], allowed, needs=needs)


def _impossible_audit(study: Study, audit: Audit) -> Iterator[Problem]:
    ratios: dict[tuple[str | int, ...], float] = {
        ("audit", "regime", "candidates", i, "ratio"): regime.ratio for i, regime in enumerate(audit.regime.candidates)
    }
    ratios |= {("audit", "proxies", "ratios", i): ratio for i, ratio in enumerate(audit.proxies.ratios)}
    for (loc, ratio), backbone in product(ratios.items(), audit.backbones):
        if backbone in study.backbones:
            depth = study.backbones[backbone].blocks
            removable = blocks_to_remove(depth, ratio)
            if not 0 < removable < depth:
                allowed = f"a ratio that removes 1 to {depth - 1} of the {depth} blocks of {backbone}, not {removable}"
                yield Problem(loc, ratio, allowed, needs=(("backbones", backbone),))
