"""Take the weights of a backbone from an official file, instead of pre-training it."""

from pathlib import Path

import torch

from entpruner.errors import UserError
from entpruner.layout import TIMING
from entpruner.models.checkpoints import (
    official_architecture,
    official_card,
    official_network,
    read_weights,
    save_model,
)
from entpruner.params.backbones import Architecture
from entpruner.rules.pretrain import ImportSettings
from entpruner.system.files import sha256_of, whole_folder, write_json
from entpruner.system.recording import Recorder


def run(settings: ImportSettings, *, checkpoint: Path, out: Path) -> None:
    """``checkpoint`` is the official file.

    The network has as many classes as the label table in the file. The upstream data must have as many. Raises
    UserError for another checksum, and for a file that is not of the backbone's architecture.
    """
    recorder = Recorder([__name__], settings, torch.device("cpu"))
    wanted = settings.backbone.checkpoint
    assert wanted is not None, "the rule is for backbones with a checkpoint"
    sha256 = sha256_of(checkpoint)
    if wanted.sha256 not in (None, sha256):
        raise UserError(
            f"{checkpoint}: its sha256 is {sha256}, expected {wanted.sha256}; get the file again or correct sha256"
        )
    weights = read_weights(checkpoint, wanted.weights)
    classes = official_architecture(checkpoint, weights, num_heads=1).num_classes
    architecture = settings.backbone.architecture(settings.input_size, settings.in_channels, classes)
    assert isinstance(architecture, Architecture), "a U-Net has no checkpoint"
    model = official_network(checkpoint, weights, architecture)
    with whole_folder(out) as folder:
        save_model(folder, model, official_card(model, settings.backbone.process, sha256))
        write_json(folder / TIMING, recorder.record())
