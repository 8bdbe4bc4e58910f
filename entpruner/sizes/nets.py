"""The cost of the networks that are not pruned: autoencoders, and the nets whose features the metrics compare."""

from entpruner.params.datasets import Dataset
from entpruner.params.evaluation import ClassifierTraining, Evaluation
from entpruner.params.latents import KlAutoencoder, TinyAutoencoder

AUTOENCODER_MACS = {"kl": (136.4e9, 311.1e9), "tiny": (15.3e9, 17.7e9)}
"""MACs to encode and to decode 256 x 256 pixels, by Stable Diffusion's autoencoder and by TAESD."""
AUTOENCODER_PARAMETERS = {"kl": 83.7e6, "tiny": 2.4e6}
INCEPTION_MACS, INCEPTION_FEATURES = 5.7e9, 2048
"""MACs and features of InceptionV3 at its 299 pixels. They also stand for the classifiers of torchvision."""
MOTION_FEATURES = 16 * 15
"""The number of features of a clip of 16 frames, the longest that there is."""


def coded(latents: KlAutoencoder | TinyAutoencoder, image_size: int, *, decode: bool) -> float:
    """FLOPs to encode or decode one image."""
    return 2 * AUTOENCODER_MACS[latents.kind][decode] * (image_size / 256) ** 2


def classified(training: ClassifierTraining, dataset: Dataset) -> float:
    """FLOPs of one image in the classifier that is trained on a data set (``evaluation/classifier.py``)."""
    width = training.width
    seen, channels = (dataset.channels, 1) if training.by_frame else (1, dataset.channels)
    convolutions = 9 * width * channels + (18 * width**2 + 36 * width**2) / 4
    return 2 * seen * (dataset.image_size**2 * convolutions + 2 * width * 16 * training.features)


def features(evaluation: Evaluation, dataset: Dataset) -> float:
    """FLOPs of one image in all feature nets of a study."""
    flops = {"classifier": classified(evaluation.classifier, dataset), "motion": 0.0}
    return sum(flops.get(net.kind, 2 * INCEPTION_MACS) for net in evaluation.extractors.values())


def feature_width(evaluation: Evaluation) -> int:
    """The number of features of the widest feature net of a study."""
    widths = {"classifier": evaluation.classifier.features, "motion": MOTION_FEATURES}
    return max(widths.get(net.kind, INCEPTION_FEATURES) for net in evaluation.extractors.values())


def image_bytes(dataset: Dataset) -> int:
    """Bytes of a stored image and its label."""
    return dataset.channels * dataset.image_size**2 + 8
