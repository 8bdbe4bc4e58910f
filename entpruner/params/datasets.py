"""The data sets of a study: which images they have, and where these come from."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from entpruner.params.base import Frozen, Several, Side
from entpruner.params.origins import Origin

Sizes = tuple[int, int, int]
"""The sizes of a data set: images to train on, held-out images, classes."""


class Digits(Frozen):
    """The handwritten digits of scikit-learn: 1,797 grey images of 8x8 pixels. They need no download."""

    image_size: ClassVar[int] = 8
    channels: ClassVar[int] = 1

    source: Literal["digits"]
    """Which data set this is."""
    classes: Several[Annotated[int, Field(ge=0, le=9)]] = tuple(range(10))
    """The digits that the data set has. Their labels are 0, 1, 2, ... in the order of this list."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """The share of the images of each class that is held out."""

    @property
    def published(self) -> Sizes:
        """The sizes, to a few images: scikit-learn has 174 to 183 digits of each class."""
        whole = 180 * len(self.classes)
        test = round(whole * self.test_fraction)
        return whole - test, test, len(self.classes)


class CaptionedDigits(Digits):
    """The same digits with captions: each class is a caption, as "a seven, thin, leaning left".

    Thin are the images of a digit with less ink than its median image. The lean is the slope of the ink, in thirds of
    the images of a digit: leaning left, upright, leaning right.
    """

    source: Literal["captioned_digits"]  # type: ignore[assignment]
    """Which data set this is."""

    @property
    def published(self) -> Sizes:
        """The sizes, to a few images."""
        train, test, digits = super().published
        return train, test, 6 * digits


class MovingDigits(Frozen):
    """Clips of the same digits: each image moves by a pixel a frame, in each of four directions.

    A class is a caption, as "a seven moving left". A clip is stored like an image that has its frames as channels. What
    leaves a frame of 8x8 pixels is gone.
    """

    image_size: ClassVar[int] = 8

    source: Literal["moving_digits"]
    """Which data set this is."""
    classes: Several[Annotated[int, Field(ge=0, le=9)]] = tuple(range(10))
    """The digits that the data set has. Each has four classes, one a direction."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """The share of the images of each digit whose clips are held out."""
    frames: int = Field(4, ge=4, le=16)
    """Frames of a clip."""

    @property
    def channels(self) -> int:
        """What stands in the place of an image's channels: the frames."""
        return self.frames

    @property
    def published(self) -> Sizes:
        """The sizes, to a few clips."""
        train, test, digits = Digits(source="digits", **self.model_dump(include={"classes", "test_fraction"})).published
        return 4 * train, 4 * test, 4 * digits


class ImageFolder(Origin):
    """A folder, .zip, .tar or .tar.gz that holds images as <split>/<class>/*.jpg or *.png.

    Each image is resized and its centre is cut out, as ADM (Dhariwal and Nichol 2021) does.
    """

    channels: ClassVar[int] = 3
    top: ClassVar[str | None] = None

    source: Literal["image_folder"]
    """Which data set this is."""
    image_size: Side
    """The side of the stored images, which are square, in pixels."""
    train: str = "train"
    """The folder of the images to train on."""
    test: str = "val"
    """The folder of the held-out images."""

    @field_validator("test")
    @classmethod
    def _held_out(cls, test: str, info: ValidationInfo) -> str:
        if test == info.data.get("train"):
            raise ValueError("another folder than train")
        return test


class ClassFolders(Origin):
    """A folder, .zip, .tar or .tar.gz that holds images as <class>/*.jpg or *.png, of which a share is held out.

    Which images are held out follows from their names: the same folder gives the same split on every machine.
    """

    channels: ClassVar[int] = 3
    top: ClassVar[str | None] = None

    source: Literal["class_folders"]
    """Which data set this is."""
    image_size: Side
    """The side of the stored images, which are square, in pixels."""
    test_fraction: float = Field(0.2, gt=0, lt=1)
    """The share of the images of each class that is held out: at least one of them, and not all."""


class ArtBench(Origin):
    """ArtBench-10 (Liao et al. 2022): artbench-10-imagefolder-split.tar, or the folder that it holds.

    The data set has 10 styles of art at 256x256 pixels. It can be had at artbench.eecs.berkeley.edu. Its authors allow
    fair use.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[Sizes] = (50_000, 10_000, 10)
    top: ClassVar[str] = "artbench-10-imagefolder-split"
    train: ClassVar[str] = "train"
    test: ClassVar[str] = "test"

    source: Literal["artbench"]
    """Which data set this is."""
    image_size: Side
    """The side of the stored images, which are square, in pixels."""


class Cub(Origin):
    """Caltech-UCSD Birds-200-2011 (Wah et al. 2011): CUB_200_2011.tgz, or the folder that it holds.

    The data set can be had at data.caltech.edu. The images belong to their photographers, and may be used for research
    and teaching that is not commercial. The held-out images are those of the official split.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[Sizes] = (5_994, 5_794, 200)

    source: Literal["cub"]
    """Which data set this is."""
    image_size: Side
    """The side of the stored images, which are square, in pixels."""


FlowerSplit = Literal["trnid", "valid", "tstid"]


class Flowers(Frozen):
    """The 102 flowers of Oxford (Nilsback and Zisserman 2008).

    The files can be had at www.robots.ox.ac.uk/~vgg/data/flowers/102. The images come from the web. They may be used
    for research, and may not be passed on.
    """

    channels: ClassVar[int] = 3
    lists: ClassVar[dict[FlowerSplit, int]] = {"trnid": 1_020, "valid": 1_020, "tstid": 6_149}
    classes: ClassVar[int] = 102

    source: Literal["flowers"]
    """Which data set this is."""
    images: Origin
    """The archive 102flowers.tgz, or the folder that it holds."""
    labels: Origin
    """The file imagelabels.mat."""
    splits: Origin
    """The file setid.mat, which has three lists of images."""
    image_size: Side
    """The side of the stored images, which are square, in pixels."""
    train: Several[FlowerSplit] = ("trnid", "valid")
    """The lists of setid.mat that are trained on. It is unknown which lists the paper takes; these are our choice."""
    test: Several[FlowerSplit] = ("tstid",)
    """The lists of setid.mat that are held out."""

    @field_validator("test")
    @classmethod
    def _held_out(cls, test: tuple[FlowerSplit, ...], info: ValidationInfo) -> tuple[FlowerSplit, ...]:
        if set(test) & set(info.data.get("train", ())):
            raise ValueError("other lists than train's")
        return test

    @property
    def published(self) -> Sizes:
        train, test = (sum(self.lists[name] for name in names) for names in (self.train, self.test))
        return train, test, self.classes


class ImageNet(Frozen):
    """ILSVRC2012 of ImageNet (Russakovsky et al. 2015), in the files that image-net.org gives after a registration.

    The images may be used for research and teaching that is not commercial. The held-out images are those of
    ILSVRC2012's val, because its test has no public labels. A copy that is extracted already, and whose val is sorted
    into a folder for each synset, is an image_folder. It then has the same classes in the same order.
    """

    channels: ClassVar[int] = 3
    published: ClassVar[Sizes] = (1_281_167, 50_000, 1000)

    source: Literal["imagenet"]
    """Which data set this is."""
    train: Origin
    """The archive ILSVRC2012_img_train.tar, which holds a tar for each synset; or a folder with one for each synset."""
    val: Origin
    """The archive ILSVRC2012_img_val.tar, or a folder of its images."""
    devkit: Origin
    """The archive ILSVRC2012_devkit_t12.tar.gz or its folder, which has the synsets and the labels of val."""
    image_size: Side
    """The side of the stored images, which are square, in pixels."""


Dataset = Annotated[
    Digits | CaptionedDigits | MovingDigits | ImageFolder | ClassFolders | ImageNet | Cub | Flowers | ArtBench,
    Field(discriminator="source"),
]
