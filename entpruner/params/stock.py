"""Transformers of diffusers as backbones: their class and configuration, and the classes that cannot be pruned."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from entpruner.params.base import Frozen, Positive, Side, Width, up_to

BY_POSITION = "its blocks differ by position, and a pruned one loads without an error and is wrong"
REFUSED = {
    "ChromaTransformer2DModel": "its modulations are numbered by the depth, so diffusers would compute other ones",
    "BriaFiboTransformer2DModel": "every block has a text layer of its own, by position",
    "BriaFibo2Transformer2DModel": "every block has a text layer of its own, by position",
    "ConsisIDTransformer3DModel": "faces enter at every second block, by position",
    "WanVACETransformer3DModel": "its control branch names blocks by number",
    "WanAnimateTransformer3DModel": "faces enter at every fifth block, by position",
    "WanAnimate2Transformer3DModel": "it passes over block 9 by number",
    "HiDreamImageTransformer2DModel": "every block has a text layer of its own, by position",
    "AceStepTransformer1DModel": BY_POSITION,
    "NucleusMoEImageTransformer2DModel": BY_POSITION,
    "MotifVideoTransformer3DModel": "its last blocks are a decoder, by position",
    "UVit2DModel": "it predicts tokens, whose entropy is not that of a Gaussian",
}
"""Transformers of diffusers that are known to come out wrong without some of their blocks, each with the reason."""


class StockShape(Frozen):
    """A transformer of diffusers, which is trained here from nothing. Its condition is the name of a class, in words.

    It is for classes whose blocks are alike, stand in one list, and hand on one state; others are refused.
    """

    transformer: str = Field(pattern=r"^[A-Z]\w+$")
    """The class in diffusers, such as PixArtTransformer2DModel or WanTransformer3DModel."""
    config: dict[str, Any]
    """The configuration of this class. It needs num_layers, in_channels and out_channels."""
    words: Positive = 8
    """Words of a class's name that the network can read: its text has so many tokens, one a word, then zeros."""
    frames: Annotated[Positive, up_to(1024, "frames")] | None = None
    """Frames of a clip, where the network is one for video. The data have the frames of a clip as channels."""

    @field_validator("transformer")
    @classmethod
    def _known_to_work(cls, transformer: str) -> str:
        if transformer in REFUSED:
            raise ValueError(f"another class, because blocks cannot be removed from this one: {REFUSED[transformer]}")
        return transformer

    @field_validator("config")
    @classmethod
    def _counted(cls, config: dict[str, Any]) -> dict[str, Any]:
        for key in ("num_layers", "in_channels", "out_channels"):
            if not (type(number := config.get(key)) is int and 0 < number <= 1000):
                raise ValueError(f"a mapping with {key}, a whole number from 1 to 1,000")
        return config

    @property
    def depth(self) -> int:
        """Blocks of the unpruned network."""
        return int(self.config["num_layers"])


class StockArchitecture(StockShape):
    """The shape of a transformer of diffusers, as stored beside its weights."""

    input_size: Side
    in_channels: Width
    num_classes: Positive

    @model_validator(mode="after")
    def _fits(self) -> Self:
        own, frames = self.config["in_channels"], self.frames or 1
        if own * frames != self.in_channels:
            times = f" times frames {frames}" if self.frames else ""
            raise ValueError(f"config.in_channels {own}{times} must be the {self.in_channels} channels of the data")
        return self
