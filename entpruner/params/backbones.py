"""The networks that are pruned, their processes, and published weights of theirs."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from entpruner.params.base import Blocks, Frozen, Positive, Side, Width, up_to
from entpruner.params.origins import Origin
from entpruner.params.stock import StockArchitecture, StockShape


class Architecture(Frozen):
    """A transformer's shape, as stored beside its weights."""

    depth: Blocks
    hidden_size: Width
    num_heads: Width
    patch_size: Side
    input_size: Side
    in_channels: Width
    num_classes: Positive
    mlp_ratio: float = Field(4.0, gt=0, le=64)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be a multiple of num_heads and of 4")
        if self.input_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide the image size {self.input_size}")
        return self


class UNetShape(Frozen):
    """A small U-Net. It is scored and audited, beside the transformers; arms are the transformers' alone."""

    channels: Width = Field(16, multiple_of=8)
    """Channels at the first level: a multiple of the 8 groups of GroupNorm. With 16, a step costs about as much
    as one of a transformer of the digits study."""
    multipliers: tuple[Width, ...] = Field((1, 2), min_length=1, max_length=12)
    """Channels of each level as multiples of ``channels``; each level has half the side of the one before."""
    blocks_per_level: Blocks = 3
    """Blocks of each level, in the encoder and again in the decoder."""
    middle_blocks: Annotated[int, up_to(1000, "blocks")] = Field(2, ge=0)
    """Blocks between the encoder and the decoder, at the lowest level."""

    @property
    def depth(self) -> int:
        """Blocks of the unpruned network."""
        return 2 * len(self.multipliers) * self.blocks_per_level + self.middle_blocks

    @model_validator(mode="after")
    def _is_not_endless(self) -> Self:
        if self.depth > 1000:
            raise ValueError(f"at most 1,000 blocks in all levels together, not {self.depth:,}")
        return self


class UNetArchitecture(UNetShape):
    """A U-Net's shape, as stored beside its weights."""

    input_size: Side
    in_channels: Width
    num_classes: Positive

    @model_validator(mode="after")
    def _fits(self) -> Self:
        halvings = len(self.multipliers) - 1
        if self.input_size % 2**halvings:
            raise ValueError(f"{halvings + 1} levels need an image size that 2**{halvings} divides")
        return self


Shape = Architecture | UNetArchitecture | StockArchitecture
"""The shape of any network."""


class Diffusion(Frozen):
    """DDPM with learned variance (DiT): integer t, linear betas, the network predicts noise and variance."""

    kind: Literal["diffusion"] = "diffusion"
    """Which process this is."""
    timesteps: int = Field(1000, ge=2)
    """The number of noise levels."""


class Flow(Frozen):
    """Flow matching (SiT): t from 0 (noise) to 1 (data), the network predicts the velocity."""

    kind: Literal["flow"] = "flow"
    """Which process this is."""
    interpolant: Literal["linear", "gvp"] = "linear"
    """How noise and image are mixed: x_t = t x + (1 - t) noise, or a variance-preserving path of sine and cosine
    (GVP)."""


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
    """A network and its process: a transformer by the paper's name (``preset: DiT-XL/2``) or by explicit sizes, a
    U-Net, or a transformer of diffusers."""

    process: ProcessSettings
    """What the network learns: diffusion (DiT) or flow (SiT)."""
    preset: str | None = Field(None, pattern=r"^(DiT|SiT)-(S|B|L|XL)/[1-9][0-9]*$")
    """DiT-XL/2, SiT-S/4, ...; stands for depth, hidden_size, num_heads and patch_size."""
    depth: Blocks | None = None
    """The number of blocks."""
    hidden_size: Width | None = None
    """The width of a token: a multiple of num_heads and of 4."""
    num_heads: Width | None = None
    """The heads of each attention."""
    patch_size: Side | None = None
    """The side of a patch, in pixels or in elements of a latent. It divides the side of the images."""
    unet: UNetShape | None = None
    """The shape of a U-Net, which is audited beside the transformers."""
    diffusers: StockShape | None = Field(None, exclude_if=lambda shape: shape is None)
    """The class and configuration of a transformer of diffusers, which is trained from nothing."""
    checkpoint: Checkpoint | None = None
    """Published weights of a transformer, of any classes: the backbone is not pre-trained."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        sizes = (self.depth, self.hidden_size, self.num_heads, self.patch_size)
        named = [way for way in (self.preset, self.unet, self.diffusers) if way is not None]
        if not named and None in sizes:
            raise ValueError("give preset, unet, diffusers, or all of depth, hidden_size, num_heads and patch_size")
        if len(named) + (sizes != (None,) * 4) > 1:
            raise ValueError("give preset, unet, diffusers or explicit sizes, only one of them")
        if self.unet is not None and self.checkpoint is not None:
            raise ValueError("a U-Net has no published checkpoint; remove checkpoint, or give a preset")
        return self

    @model_validator(mode="after")
    def _fit_for_stock(self) -> Self:
        if self.diffusers is None:
            return self
        if self.checkpoint is not None:
            raise ValueError("a transformer of diffusers is trained from nothing; remove checkpoint, or give a preset")
        own, out = (self.diffusers.config[key] for key in ("in_channels", "out_channels"))
        if out != 2 * own and (self.process.kind == "diffusion" or out != own):
            allowed = f"{2 * own} with diffusion, which learns variances, too, and {own} or {2 * own} with flow"
            raise ValueError(f"diffusers.config.out_channels {out} must be {allowed}")
        return self

    def architecture(self, input_size: int, in_channels: int, num_classes: int) -> Shape:
        """The network for images of (in_channels, input_size, input_size) in ``num_classes`` classes."""
        kind: type[Shape] = Architecture
        if self.unet or self.diffusers:
            kind = UNetArchitecture if self.unet else StockArchitecture
        return kind(input_size=input_size, in_channels=in_channels, num_classes=num_classes, **self.shape)

    @property
    def blocks(self) -> int:
        """The number of blocks of the unpruned network."""
        other = self.unet or self.diffusers
        return self.shape["depth"] if other is None else other.depth

    @property
    def has_parts(self) -> bool:
        """Whether the network can be run part by part. The proxies, distillation and some criteria need that.

        A transformer of diffusers is run as a whole.
        """
        return self.diffusers is None

    @property
    def proxied(self) -> bool:
        """Whether the proxies can measure the network: they know the layers of DiT and SiT."""
        return self.unet is None and self.diffusers is None

    @property
    def shape(self) -> dict[str, Any]:
        """The keys of the U-Net or of diffusers; or depth, hidden_size, num_heads and patch_size, a preset resolved."""
        if (other := self.unet or self.diffusers) is not None:
            return other.model_dump()
        if self.preset is not None:
            size, patch = self.preset.split("-")[1].split("/")
            values: tuple[Any, ...] = (*SIZES[size], int(patch))
        else:
            values = (self.depth, self.hidden_size, self.num_heads, self.patch_size)
        return dict(zip(("depth", "hidden_size", "num_heads", "patch_size"), values, strict=True))
