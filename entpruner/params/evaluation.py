"""What images are measured with."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from entpruner.params.base import Frozen, Named, Positive


class ClassifierExtractor(Frozen):
    """A small classifier that the pipeline trains on the data set itself."""

    kind: Literal["classifier"]
    """Which feature net this is."""


class TorchvisionExtractor(Frozen):
    """Any torchvision classifier; its features are what its last linear or convolutional classifier layer sees."""

    kind: Literal["torchvision"]
    """Which feature net this is."""
    model: str
    """Name in torchvision.models: squeezenet1_0, resnet50, ..."""
    weights: str
    """A .safetensors file, or a state dict that loads with weights_only."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum that the weights must have."""


class InceptionExtractor(Frozen):
    """torch-fidelity's inception-v3-compat: the only one whose distance is called FID."""

    kind: Literal["inception"]
    """Which feature net this is."""
    weights: str | None = None
    """A local weights file; without it torch-fidelity downloads its own."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum that the weights must have."""


class MotionExtractor(Frozen):
    """No net: the differences between the frames of a clip, each averaged over the squares of a 4x4 grid."""

    kind: Literal["motion"]
    """Which feature net this is. The metrics of this one end in _motion."""


Extractor = Annotated[
    ClassifierExtractor | TorchvisionExtractor | InceptionExtractor | MotionExtractor, Field(discriminator="kind")
]


class ClassifierTraining(Frozen):
    """The small classifier of the study's own data."""

    steps: Positive = 600
    """Optimizer steps."""
    batch_size: Positive = 64
    """Images of a step."""
    learning_rate: float = Field(2e-3, gt=0)
    """AdamW's learning rate."""
    width: Positive = 32
    """Channels of the first convolution."""
    features: Positive = 64
    """Width of the layer whose activations are the features."""
    by_frame: bool = Field(False, exclude_if=lambda by_frame: not by_frame)
    """Show the classifier one frame of a clip at a time, and average their features: it then sees no motion."""


class Evaluation(Frozen):
    """What the images are measured with."""

    extractors: Named[Extractor] = {"classifier": ClassifierExtractor(kind="classifier")}
    """Feature nets by name; the first is the one that tables show."""
    batch_size: Positive = 256
    """Images that a feature net sees at once."""
    kid_subsets: Positive = 100
    """Random subsets that KID is the mean over."""
    kid_subset_size: Positive = 100
    """Images of each of these subsets."""
    neighbours: Positive = 3
    """Which neighbour's distance precision and recall take as the radius (k)."""
    manifold_images: Positive = 10_000
    """Images of each side that precision and recall see, drawn at random where there are more: what they cost grows
    with the square. ADM's evaluator sees 10,000 real ones."""
    latency_batch_size: Positive = 64
    """Images of the batch whose latency is measured."""
    latency_repeats: int = Field(20, ge=5)
    """How often the latency of each network is measured; tables show the median."""
    classifier: ClassifierTraining = ClassifierTraining()
    """The training of the study's own classifier."""

    @model_validator(mode="after")
    def _feature_nets(self) -> Self:
        if not self.extractors:
            raise ValueError("extractors needs at least one feature net")
        if sum(extractor.kind == "inception" for extractor in self.extractors.values()) > 1:
            raise ValueError("extractors may hold one inception net only: its distance is the one called FID")
        if any((extractor.kind == "motion") != (name == "motion") for name, extractor in self.extractors.items()):
            raise ValueError("an extractor of kind motion, and no other, is called motion")
        return self
