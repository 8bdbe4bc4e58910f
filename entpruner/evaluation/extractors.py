"""Feature nets. They turn images into the vectors whose distributions are compared.

There are four kinds. ``inception`` is torch-fidelity's InceptionV3. Only its Fréchet distance is called FID.
``torchvision`` is any classifier of torchvision, with a file of weights. ``classifier`` is the small classifier that
the study trains itself (``classifier.py``). ``motion`` is no net: it compares the differences between frames.

This package uses torch-fidelity's network and formulas, but not its inputs or its cache of features, because that cache
can return the features of other images of the same name. Networks run in float32, as for every published FID. Features
are converted to float64, so means and covariances are float64.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from entpruner.errors import UserError
from entpruner.evaluation.classifier import Classifier, load_classifier
from entpruner.models.checkpoints import read_weights
from entpruner.params.evaluation import (
    ClassifierExtractor,
    Evaluation,
    InceptionExtractor,
    MotionExtractor,
    TorchvisionExtractor,
)
from entpruner.system import parallel
from entpruner.system.devices import without_tf32
from entpruner.system.files import sha256_of

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # the input normalisation of torchvision's classifiers
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_SIDE = 224


@dataclass(frozen=True)
class FeatureNet:
    """A feature net and its name in the params file, which is part of the names of its metrics."""

    name: str
    kind: Literal["inception", "torchvision", "classifier", "motion"]
    network: Callable[[Tensor], Tensor]
    """It takes uint8 images (B, C, H, W) and returns features (B, D)."""
    device: torch.device
    batch_size: int
    logits: Callable[[Tensor], Tensor] | None = None
    """It takes features (N, D) and returns logits (N, classes) on the CPU. None for a net without a last layer."""

    def features(self, images: NDArray[np.uint8]) -> Tensor:
        """The features (N, D) float64, on the CPU, of uint8 images (N, C, H, W), which may be memory-mapped.

        Several processes share the batches. The first process gets all features, and the others get none.
        """
        parts, starts = [], range(0, len(images), self.batch_size)
        sizes = [min(self.batch_size, len(images) - start) for start in starts]
        with torch.inference_mode(), without_tf32():
            for start in parallel.mine(starts):
                batch = torch.from_numpy(np.array(images[start : start + self.batch_size]))
                parts.append(self.network(batch.to(self.device)).double().cpu())
        return torch.cat(parallel.gathered(parts, sizes) or [torch.empty(0, 0)])

    def key(self, metric: str) -> str:
        """The name of a metric in ``metrics.json``: ``fid`` for InceptionV3, and ``fd_<name>`` for any other net."""
        if self.kind == "inception":
            return {"fd": "fid"}.get(metric, metric)
        return f"{metric}_{self.name}"


def feature_nets(settings: Evaluation, classifier: Path | None, device: torch.device) -> list[FeatureNet]:
    """The feature nets of a study. Tables show the first. ``classifier`` is the folder of the data set's classifier."""
    nets = []
    for name, extractor in settings.extractors.items():
        if isinstance(extractor, ClassifierExtractor):
            assert classifier is not None, "the rule hands over the classifier wherever it is an extractor"
            nets.append(classifier_net(name, load_classifier(classifier), device, settings.batch_size))
        elif isinstance(extractor, InceptionExtractor):
            nets.append(inception_net(name, extractor, device, settings.batch_size))
        elif isinstance(extractor, MotionExtractor):
            nets.append(FeatureNet(name, "motion", motion, device, settings.batch_size))
        else:
            nets.append(torchvision_net(name, extractor, device, settings.batch_size))
    return nets


def classifier_net(name: str, classifier: Classifier, device: torch.device, batch_size: int) -> FeatureNet:
    """The study's own classifier. Its features are the inputs of its last layer."""
    classifier = classifier.to(device).eval()

    def network(images: Tensor) -> Tensor:
        return classifier.features(images.float() / 127.5 - 1)

    @torch.inference_mode()
    def logits(features: Tensor) -> Tensor:
        return classifier.head(features.float().to(device)).cpu()

    return FeatureNet(name, "classifier", network, device, batch_size, logits)


def motion(clips: Tensor) -> Tensor:
    """What changes from frame to frame of uint8 clips (B, F, H, W), averaged over a 4x4 grid: (B, 16 (F - 1))."""
    frames = clips.float() / 255
    return F.adaptive_avg_pool2d(frames[:, 1:] - frames[:, :-1], 4).flatten(1)


def torchvision_net(name: str, settings: TorchvisionExtractor, device: torch.device, batch_size: int) -> FeatureNet:
    """A classifier of torchvision. Its features are the inputs of its last linear or convolutional layer.

    Inputs of a convolutional layer are averaged over space. Images are resized to 224x224 (bilinear, antialiased) and
    normalised as torchvision's ImageNet weights expect.

    Raises UserError for an unknown model, and for weights that are missing, unsafe or another model's.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if settings.model not in known:
        nearest = get_close_matches(settings.model, known, n=3, cutoff=0)
        raise UserError(f"extractor {name}: torchvision has no classifier {settings.model!r}; did you mean {nearest}?")
    model = models.get_model(settings.model, weights=None)
    weights = checked_weights(name, Path(settings.weights), settings.sha256)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        found = " ".join(str(error).split())[:160]
        raise UserError(f"extractor {name}: {settings.weights} is not a {settings.model}: {found}") from error
    last = [path for path, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1]
    model.set_submodule(last, nn.Identity())  # now the network returns the inputs of this layer
    model = model.to(device).eval()
    mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))

    def network(images: Tensor) -> Tensor:
        x = rgb(images).float() / 255  # (B, 3, H, W)
        x = F.interpolate(x, size=(IMAGENET_SIDE, IMAGENET_SIDE), mode="bilinear", antialias=True)  # (B, 3, 224, 224)
        return model((x - mean) / std)  # (B, D)

    return FeatureNet(name, "torchvision", network, device, batch_size)


def inception_net(name: str, settings: InceptionExtractor, device: torch.device, batch_size: int) -> FeatureNet:
    """The network ``inception-v3-compat`` of torch-fidelity, whose features are the outputs (2048) of its last pooling.

    It resizes images as the original TensorFlow graph does. Its logits are ``logits_unbiased``, from the last layer
    without its bias, as for the published Inception Score.

    Without a file of weights, that of torch-fidelity is downloaded into torch's hub folder and its checksum is tested.

    Raises UserError for weights that are missing, unsafe or another network's, and when the download fails.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    file = Path(settings.weights) if settings.weights else downloaded(name, URL_INCEPTION_V3)
    # torch-fidelity would run code in a weights file, so it gets a copy that this process has written.
    checked = io.BytesIO()
    torch.save(checked_weights(name, file, settings.sha256), checked)
    checked.seek(0)
    try:
        model = FeatureExtractorInceptionV3(name, ["2048"], feature_extractor_weights_path=checked)
    except RuntimeError as error:
        raise UserError(f"extractor {name}: {file} does not hold torch-fidelity's InceptionV3") from error
    model = model.to(device).eval()

    def network(images: Tensor) -> Tensor:
        return model(rgb(images))[0]

    @torch.inference_mode()
    def logits(features: Tensor) -> Tensor:
        with without_tf32():
            return (features.float().to(device) @ model.fc.weight.T).cpu()

    return FeatureNet(name, "inception", network, device, batch_size, logits)


def downloaded(name: str, url: str) -> Path:
    """The file of ``url`` in torch's hub folder. If it is missing, it is downloaded.

    The name of the file ends with the first digits of its sha256, which are tested.
    """
    file = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), hash_prefix=file.stem.rsplit("-", 1)[1], progress=False)
        except (OSError, RuntimeError) as error:  # there is no network, or the checksum is another
            raise UserError(
                f"extractor {name}: cannot download {url} ({error}); give `weights`, a local copy"
            ) from error
    return file


def checked_weights(name: str, file: Path, sha256: str | None) -> dict[str, Tensor]:
    """The state dict in ``file``. Raises UserError as ``read_weights`` does, and if ``sha256`` is another."""
    if not file.is_file():
        raise UserError(f"extractor {name}: there is no weights file {file}; put it there or change `weights`")
    if sha256 is not None and (found := sha256_of(file)) != sha256:
        raise UserError(f"extractor {name}: {file} has sha256 {found}, the params say {sha256}; fetch the right file")
    try:
        return read_weights(file)
    except UserError as error:
        raise UserError(f"extractor {name}: {error}") from None


def rgb(images: Tensor) -> Tensor:
    """Images (B, 3, H, W) of grey or RGB images (B, C, H, W). Raises UserError if C is neither 1 nor 3."""
    if images.shape[1] not in (1, 3):
        raise UserError(f"feature nets see images of 1 or 3 channels, not {images.shape[1]}; decode latents first")
    return images.expand(-1, 3, -1, -1)
