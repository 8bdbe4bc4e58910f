"""The autoencoder whose latents a study's networks work on."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from entpruner.params.base import Frozen, Positive, Side, Width, up_to


class Autoencoder(Frozen):
    """An image autoencoder of diffusers', trained elsewhere. Networks work on its latents, evaluation on pixels."""

    folder: str | None = None
    """The folder in which diffusers saved it, with config.json and diffusion_pytorch_model.safetensors."""
    hub: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Instead of a folder, its id on the Hugging Face hub, such as stabilityai/sd-vae-ft-ema."""
    revision: str = "main"
    """Commit, tag or branch on the hub. Only a commit always stands for the same files."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum that its weights must have."""
    channels: Width = 4
    """Channels of a latent."""
    factor: Side = 8
    """The side of an image divided by the side of its latent."""
    mirror: bool = True
    """Keep the latents of mirror images too. ``horizontal_flip`` needs them: a flipped latent is not the latent of a
    flipped image."""
    batch_size: Positive = 32
    """Images that are encoded, or decoded, at once."""
    shards: Annotated[Positive, up_to(10_000, "jobs")] = 1
    """Jobs that encode a data set side by side."""
    scale: float
    """Networks see a latent multiplied by this."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.hub is None):
            raise ValueError("give folder or hub, one of them")
        return self

    @property
    def views(self) -> Literal[1, 2]:
        """Latents of an image: its own, or its own and that of its mirror image."""
        return 2 if self.mirror else 1


class KlAutoencoder(Autoencoder):
    """AutoencoderKL (Stable Diffusion's VAE): a latent is a draw from an image's posterior."""

    moments: ClassVar[Literal[1, 2]] = 2
    """Numbers kept of each element of a latent: mean and standard deviation."""
    kind: Literal["kl"]
    """Which autoencoder this is."""
    scale: float = Field(0.18215, gt=0)
    """Networks see a latent multiplied by this. The default is DiT's and SiT's."""


class TinyAutoencoder(Autoencoder):
    """AutoencoderTiny (TAESD): small and fast. It has no posterior; an image has one latent."""

    moments: ClassVar[Literal[1, 2]] = 1
    kind: Literal["tiny"]
    """Which autoencoder this is."""
    scale: float = Field(1.0, gt=0)
    """Networks see a latent multiplied by this. These latents have a variance of about 1 already."""


Latents = Annotated[KlAutoencoder | TinyAutoencoder, Field(discriminator="kind")]
