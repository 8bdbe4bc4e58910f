"""From a data set's params to its store."""

from functools import partial
from pathlib import Path

from entpruner.data.archives import opened
from entpruner.data.class_folders import held_out_splits
from entpruner.data.cub import cub_splits
from entpruner.data.digits import prepare_captioned, prepare_digits, prepare_moving
from entpruner.data.flowers import flowers_splits
from entpruner.data.image_folder import folder_splits
from entpruner.data.imagenet import prepare_imagenet
from entpruner.data.labelled import vouched, write_images
from entpruner.params.datasets import (
    ArtBench,
    CaptionedDigits,
    ClassFolders,
    Cub,
    Dataset,
    Digits,
    Flowers,
    ImageFolder,
    ImageNet,
    MovingDigits,
)


def prepare(dataset: Dataset, out: Path, threads: int = 1) -> None:
    """Write the data store of a data set, with the splits ``train`` and ``test``. Same params and data, same bytes.

    ``threads`` decode the images of sources that are files. A preparation that was killed or stopped goes on with the
    next call. Raises UserError, and leaves no store, if a file is missing, damaged, incomplete or of another checksum,
    if a member would climb out of its archive, or if an image is missing, there twice, or can't be read.
    """
    dataset = vouched(dataset)
    match dataset:
        case CaptionedDigits():
            return prepare_captioned(dataset, out)
        case MovingDigits():
            return prepare_moving(dataset, out)
        case Digits():
            return prepare_digits(dataset, out)
        case ImageNet():
            return prepare_imagenet(dataset, out, threads)
        case ImageFolder() | ArtBench():
            path, top, splits_in = dataset.file, dataset.top, partial(folder_splits, dataset)
        case ClassFolders():
            path, top, splits_in = dataset.file, dataset.top, partial(held_out_splits, dataset)
        case Cub():
            path, top, splits_in = dataset.file, "CUB_200_2011", partial(cub_splits, dataset)
        case Flowers():
            path, top, splits_in = dataset.images.file, "jpg", partial(flowers_splits, dataset)
    with opened(Path(path), top) as entries:
        splits, class_names = splits_in(entries)
        shape, source = (3, dataset.image_size, dataset.image_size), dataset.model_dump(mode="json")
        write_images(out, Path(path), entries, splits, class_names, shape, source, threads)
