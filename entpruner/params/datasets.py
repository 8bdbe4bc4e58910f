"""What images a study is about, and where they come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from entpruner.params.base import Frozen, Positive, Several
from entpruner.params.origins import Origin


class Digits(Frozen):
    """scikit-learn's 8x8 handwritten digits: 1,797 real images inside the package, nothing to download."""

    image_size: ClassVar[int] = 8
    channels: ClassVar[int] = 1

    source: Literal["digits"]
    classes: Several[Annotated[int, Field(ge=0, le=9)]] = tuple(range(10))
    """The digits to keep; they are relabelled 0, 1, 2, ... in this order."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """Share of each class that is held out for testing."""


class ImageFolder(Origin):
    """A folder, .zip, .tar or .tar.gz of <split>/<class>/*.jpg|png; resized and centre-cropped as ADM does."""

    channels: ClassVar[int] = 3
    top: ClassVar[str | None] = None

    source: Literal["image_folder"]
    image_size: Positive
    """Side of the stored square images, in pixels."""
    train: str = "train"
    """Folder of the split to train on."""
    test: str = "val"
    """Folder of the held-out split."""

    @field_validator("test")
    @classmethod
    def _held_out(cls, test: str, info: ValidationInfo) -> str:
        if test == info.data.get("train"):
            raise ValueError("another folder than train")
        return test


class ArtBench(Origin):
    """ArtBench-10 (Liao et al. 2022): artbench-10-imagefolder-split.tar or its folder, 10 styles of art at 256x256.

    From artbench.eecs.berkeley.edu, for fair use by the words of its authors.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[tuple[int, int, int]] = (50_000, 10_000, 10)  # images in train and in test, classes
    top: ClassVar[str] = "artbench-10-imagefolder-split"
    train: ClassVar[str] = "train"
    test: ClassVar[str] = "test"

    source: Literal["artbench"]
    image_size: Positive
    """Side of the stored square images, in pixels."""


class Cub(Origin):
    """Caltech-UCSD Birds-200-2011 (Wah et al. 2011): CUB_200_2011.tgz or its folder, with its official split.

    From data.caltech.edu; the images are their photographers', for research and teaching that is not commercial.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[tuple[int, int, int]] = (5_994, 5_794, 200)  # images in train and in test, classes

    source: Literal["cub"]
    image_size: Positive
    """Side of the stored square images, in pixels."""


FlowerSplit = Literal["trnid", "valid", "tstid"]


class Flowers(Frozen):
    """Oxford's 102 flowers (Nilsback and Zisserman 2008).

    From www.robots.ox.ac.uk/~vgg/data/flowers/102; the images are from the web, for research, and not to be passed on.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[dict[FlowerSplit, int]] = {"trnid": 1_020, "valid": 1_020, "tstid": 6_149}
    classes: ClassVar[int] = 102

    source: Literal["flowers"]
    images: Origin
    """102flowers.tgz or its folder."""
    labels: Origin
    """imagelabels.mat."""
    splits: Origin
    """setid.mat."""
    image_size: Positive
    """Side of the stored square images, in pixels."""
    train: Several[FlowerSplit] = ("trnid", "valid")
    """Lists of setid.mat to train on. Ours: the paper's choice is unknown."""
    test: Several[FlowerSplit] = ("tstid",)
    """Lists that are held out."""

    @field_validator("test")
    @classmethod
    def _held_out(cls, test: tuple[FlowerSplit, ...], info: ValidationInfo) -> tuple[FlowerSplit, ...]:
        if set(test) & set(info.data.get("train", ())):
            raise ValueError("other lists than train's")
        return test


class ImageNet(Frozen):
    """ImageNet's ILSVRC2012 (Russakovsky et al. 2015). The held-out split is its val: test has no public labels.

    From image-net.org after registration, for research and teaching that is not commercial. An extracted copy whose
    val is sorted into folders of synsets is an image_folder, with the same classes.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[tuple[int, int, int]] = (1_281_167, 50_000, 1000)  # images in train and in test, classes

    source: Literal["imagenet"]
    train: Origin
    """ILSVRC2012_img_train.tar, a tar of a tar a synset, or a folder of a folder a synset."""
    val: Origin
    """ILSVRC2012_img_val.tar, or a folder of its images."""
    devkit: Origin
    """ILSVRC2012_devkit_t12.tar.gz or its folder: the synsets, and the labels of val."""
    image_size: Positive
    """Side of the stored square images, in pixels."""


Dataset = Annotated[
    Digits | ImageFolder | ImageNet | Cub | Flowers | ArtBench,
    Field(discriminator="source"),
]
