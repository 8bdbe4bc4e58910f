"""Copy the study's autoencoder, from the hub or a folder, and check that it is what the study says."""

from pathlib import Path

from entpruner.data.autoencoder import fetch_autoencoder
from entpruner.rules.data import AutoencoderSettings
from entpruner.system.files import whole_folder


def run(settings: AutoencoderSettings, *, out: Path) -> None:
    with whole_folder(out) as folder:
        fetch_autoencoder(settings.latents, folder)
