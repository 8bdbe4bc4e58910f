"""The networks that are pruned, their processes, and published weights of theirs."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from entpruner.params.base import Blocks, Frozen, Positive, Side, Width, up_to
from entpruner.params.origins import Origin


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
    """A network and its process: a transformer by the paper's name (``preset: DiT-XL/2``) or by explicit sizes, or a
    U-Net."""

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
        """The number of blocks of the unpruned network."""
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
