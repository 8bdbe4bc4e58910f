"""From a data set's params to its store."""

from pathlib import Path

from entpruner.data.cub import prepare_cub
from entpruner.data.digits import prepare_digits
from entpruner.data.flowers import prepare_flowers
from entpruner.data.image_folder import prepare_image_folder
from entpruner.data.imagenet import prepare_imagenet
from entpruner.params.datasets import ArtBench, Cub, Dataset, Digits, Flowers, ImageFolder, ImageNet


def prepare(dataset: Dataset, out: Path) -> None:
    """Write the data store of a data set, with the splits ``train`` and ``test``. Same params and data, same bytes.

    Raises UserError, and leaves nothing half-written, if the source is missing, damaged or incomplete.
    """
    match dataset:
        case Digits():
            prepare_digits(dataset, out)
        case ImageFolder() | ArtBench():
            prepare_image_folder(dataset, out)
        case ImageNet():
            prepare_imagenet(dataset, out)
        case Cub():
            prepare_cub(dataset, out)
        case Flowers():
            prepare_flowers(dataset, out)
