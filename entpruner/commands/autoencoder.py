"""Copy the study's autoencoder, from the hub or a folder, and check that it is what the study says."""

from pathlib import Path

from entpruner.data.autoencoder import fetch_autoencoder
from entpruner.params.base import Frozen
from entpruner.params.latents import Latents
from entpruner.system.files import whole_folder


class Settings(Frozen):
    latents: Latents


def run(settings: Settings, *, out: Path) -> None:
    with whole_folder(out) as folder:
        fetch_autoencoder(settings.latents, folder)
