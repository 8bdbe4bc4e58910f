"""From a data set's params to its store."""

from pathlib import Path

from entpruner.data.digits import prepare_digits
from entpruner.data.image_folder import prepare_image_folder
from entpruner.params import Digits, ImageFolder


def prepare(dataset: Digits | ImageFolder, out: Path) -> None:
    """Write the data store of a data set, with the splits ``train`` and ``test``. Same params and data, same bytes.

    Raises UserError, and leaves nothing half-written, if the source is missing, damaged or incomplete.
    """
    if isinstance(dataset, Digits):
        prepare_digits(dataset, out)
    else:
        prepare_image_folder(dataset, out)
