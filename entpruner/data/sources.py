"""From a data set's params to its store."""

from pathlib import Path

from entpruner.data.cub import prepare_cub
from entpruner.data.digits import prepare_digits
from entpruner.data.flowers import prepare_flowers
from entpruner.data.image_folder import prepare_image_folder
from entpruner.data.imagenet import prepare_imagenet
from entpruner.params.datasets import ArtBench, Cub, Dataset, Digits, Flowers, ImageFolder, ImageNet


def prepare(dataset: Dataset, out: Path, threads: int = 1) -> None:
    """Write the data store of a data set, with the splits ``train`` and ``test``. Same params and data, same bytes.

    ``threads`` decode the images of sources that are files. A preparation that was killed or stopped goes on with the
    next call. Raises UserError, and leaves no store, if the source is missing, damaged or incomplete.
    """
    match dataset:
        case Digits():
            prepare_digits(dataset, out)
        case ImageFolder() | ArtBench():
            prepare_image_folder(dataset, out, threads)
        case ImageNet():
            prepare_imagenet(dataset, out, threads)
        case Cub():
            prepare_cub(dataset, out, threads)
        case Flowers():
            prepare_flowers(dataset, out, threads)
