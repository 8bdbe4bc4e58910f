"""The autoencoder of a study's latents: a copy of diffusers' files, checked once, and the network that they hold."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.layout import CODEC_CONFIG, CODEC_WEIGHTS
from entpruner.params.latents import Latents
from entpruner.system.files import read_json, sha256_of


def fetch_autoencoder(settings: Latents, out: Path) -> None:
    """Copy config and weights into the folder ``out``, from the hub if need be.

    Raises UserError if they are missing, of another checksum, or not such an autoencoder as the settings say.
    """
    named = str(settings.folder or settings.hub)
    for name in (CODEC_CONFIG, CODEC_WEIGHTS):
        shutil.copyfile(hub_file(settings, name) if settings.hub else local_file(settings, name), out / name)
    if settings.sha256 not in (None, found := sha256_of(out / CODEC_WEIGHTS)):
        expected = f"expected {settings.sha256}; get the file again or correct latents.sha256"
        raise UserError(f"{named}: the sha256 of {CODEC_WEIGHTS} is {found}, {expected}")
    load_autoencoder(out, settings, torch.device("cpu"), named)


def local_file(settings: Latents, name: str) -> Path:
    file = Path(settings.folder or "") / name
    if not file.is_file():
        raise UserError(
            f"{settings.folder}: no autoencoder here, {name} is missing; correct latents.folder, or save one there "
            "with diffusers' save_pretrained"
        )
    return file


def hub_file(settings: Latents, name: str) -> Path:
    """The file in the hub's cache, where the hub's library first downloads what is missing of it."""
    from huggingface_hub import hf_hub_download  # this import takes seconds, and few commands need it

    assert settings.hub is not None
    try:
        return Path(hf_hub_download(settings.hub, name, revision=settings.revision))
    except Exception as error:  # errors of the hub, of the connection and of the disk have no common class
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{settings.hub} ({settings.revision}): can't get {name} from the hub ({reason}); correct latents.hub or "
            "latents.revision, or fetch the files elsewhere and set latents.folder"
        ) from error


@dataclass(frozen=True)
class Codec:
    """From images to latents and back: a frozen autoencoder, on its device."""

    network: Any
    """An AutoencoderKL or AutoencoderTiny."""
    settings: Latents
    sha256: str
    """Checksum of the network's weights."""

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.inference_mode()
    def encode(self, x: Tensor) -> Tensor:
        """The moments (B, M, h, w) float32 of images x (B, 3, H, W) in [-1, 1].

        They are mean and standard deviation of the posterior, M = 2C, or an AutoencoderTiny's latents, M = C.
        """
        encoded = self.network.encode(x.to(self.device))
        if self.settings.kind == "kl":
            posterior = encoded.latent_dist
            return torch.cat([posterior.mean, posterior.std], dim=1)
        return encoded.latents

    @torch.inference_mode()
    def decode(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), about in [-1, 1], from the scaled latents x (B, C, h, w) that networks work on."""
        parts = torch.split(x.to(self.device) / self.settings.scale, self.settings.batch_size)
        return torch.cat([self.network.decode(part).sample for part in parts])


def load_autoencoder(folder: Path, settings: Latents, device: torch.device, named: str | None = None) -> Codec:
    """Raises UserError if the files are damaged, or hold another autoencoder than the settings say.

    That error calls the folder ``named``, which is given if the folder is a copy that the user does not know.
    """
    named = named or str(folder)
    require_fit(folder, settings, named)
    import diffusers

    diffusers.logging.set_verbosity_error()  # where it only warns, a UserError follows here
    kind = diffusers.AutoencoderKL if settings.kind == "kl" else diffusers.AutoencoderTiny
    try:
        network, loading = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,  # no pickle
            low_cpu_mem_usage=False,  # its way of saving memory needs another library
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise unloadable(named, reason.replace(str(folder), named)) from error
    if loading["missing_keys"]:  # diffusers leaves these at random
        raise unloadable(named, f"{loading['missing_keys'][0]} is missing")
    network.requires_grad_(False).eval().to(device)
    return Codec(network, settings, sha256_of(folder / CODEC_WEIGHTS))


def require_fit(folder: Path, settings: Latents, named: str) -> None:
    """Raise UserError unless the config in ``folder`` is that of such an autoencoder as the settings say."""
    kind, widths = {
        "kl": ("AutoencoderKL", "block_out_channels"),
        "tiny": ("AutoencoderTiny", "encoder_block_out_channels"),
    }[settings.kind]
    try:
        config = read_json(folder / CODEC_CONFIG)
        found = {"kind": config["_class_name"]}
        if found["kind"] == kind:
            found |= {"image channels": config["in_channels"], "latent channels": config["latent_channels"]}
            found["factor"] = 2 ** (len(config[widths]) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{named}/{CODEC_CONFIG}: not the config of an autoencoder ({error}); get it again") from error
    needed = {"kind": kind, "image channels": 3, "latent channels": settings.channels, "factor": settings.factor}
    for what, value in needed.items():
        if found[what] != value:
            raise UserError(
                f"{named}: its {what} is {found[what]}, the settings say {value}; take another autoencoder or correct "
                "the section latents"
            )


def unloadable(named: str, reason: str) -> UserError:
    return UserError(
        f"{named}/{CODEC_WEIGHTS}: not the weights of {CODEC_CONFIG} beside it ({reason}); get both files again"
    )
