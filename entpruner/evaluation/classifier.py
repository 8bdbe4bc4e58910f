"""A small classifier of the study's own images. It gives features for distances, and it checks classes of samples."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.layout import CARD, WEIGHTS
from entpruner.params.evaluation import ClassifierTraining
from entpruner.system.files import intact, read_json, write_json
from entpruner.system.randomness import generator

POOLED_SIDE = 4  # the last feature map is averaged to 4x4; that of an 8x8 image has this size already


class Classifier(nn.Module):
    """Three convolutions, a linear layer of features and one of logits. ``config`` holds its arguments."""

    def __init__(self, *, in_channels: int, num_classes: int, width: int, features: int) -> None:
        super().__init__()
        self.config = {
            "in_channels": in_channels, "num_classes": num_classes, "width": width, "features": features,
        }  # fmt: skip
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(POOLED_SIDE),
            nn.Flatten(),
            nn.Linear(2 * width * POOLED_SIDE**2, features),
            nn.SiLU(),
        )
        self.head = nn.Linear(features, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [-1, 1] -> the features (B, D) that enter the last layer.

        A classifier of grey images takes clips (B, F, H, W) frame by frame, and averages the features of the frames.
        """
        clips, frames = x.shape[:2]
        if frames == self.config["in_channels"]:
            return self.body(x)
        return self.body(x.flatten(0, 1)[:, None]).view(clips, frames, -1).mean(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))  # (B, classes)


def fit(
    images: ImageSet, settings: ClassifierTraining, *, seed: int, artefact: str, device: torch.device
) -> Classifier:
    """Train a classifier by AdamW with a cosine schedule. Each batch is shifted by at most one pixel."""
    classifier = Classifier(
        in_channels=1 if settings.by_frame else images.images.shape[1],
        num_classes=images.num_classes,
        width=settings.width,
        features=settings.features,
    )
    initialize(classifier, generator(seed, artefact, "start"))
    classifier.to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for step in range(settings.steps):
        draw = generator(seed, artefact, step)
        x, y = images.batch(torch.randint(len(images), (settings.batch_size,), generator=draw))
        logits = classifier(shifted(x, draw).to(device))
        loss = F.cross_entropy(logits, y.to(device))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return classifier.eval()


def initialize(classifier: Classifier, draw: torch.Generator) -> None:
    """Draw the weights by He's initialisation from ``draw``, and set the biases to zero."""
    for parameter in classifier.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=draw)
        else:
            nn.init.zeros_(parameter)


def shifted(x: Tensor, draw: torch.Generator) -> Tensor:
    """The batch (B, C, H, W) moved by -1, 0 or 1 pixels in each direction. The pixels of the border are repeated."""
    height, width = x.shape[-2:]
    down, right = torch.randint(3, (2,), generator=draw).tolist()
    return F.pad(x, (1, 1, 1, 1), mode="replicate")[..., down : down + height, right : right + width]


@torch.inference_mode()
def accuracy(classifier: Classifier, images: ImageSet, batch_size: int) -> float:
    """The share of the images that the classifier assigns to their class."""
    device = next(classifier.parameters()).device
    correct = 0
    for indices in torch.split(torch.arange(len(images)), batch_size):
        x, y = images.batch(indices)
        correct += int((classifier(x.to(device)).argmax(dim=1).cpu() == y).sum())
    return correct / len(images)


def save_classifier(folder: Path, classifier: Classifier) -> None:
    """Write ``model.safetensors`` and ``model.json`` into an existing folder."""
    state = {name: value.cpu().contiguous() for name, value in classifier.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    write_json(folder / CARD, classifier.config)


def load_classifier(folder: Path) -> Classifier:
    """The classifier that ``save_classifier`` wrote. Raises UserError if a file is missing or damaged."""
    try:
        classifier = Classifier(**read_json(folder / CARD))
        classifier.load_state_dict(load_file(intact(folder / WEIGHTS)))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        one_line = " ".join(str(error).split())[:160]
        raise UserError(
            f"{folder}: no whole classifier ({one_line}); remove the folder and run the workflow"
        ) from error
    return classifier.eval()
