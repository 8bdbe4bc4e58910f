"""From the bytes of a picture to pixels of one size."""

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from entpruner.data.archives import DAMAGE, Entry
from entpruner.errors import UserError

SUFFIXES = {".jpg", ".jpeg", ".png"}
LARGEST = 2**30 // 12  # pixels: PIL's own limit, above which it warns and, above twice that, raises
LONGEST = 50  # short sides: what is longer grows to a huge image when its short side is brought to size
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # decode refuses such images itself
warnings.filterwarnings("ignore", "Corrupt EXIF data", UserWarning)


def is_picture(entry: Entry) -> bool:
    """Whether it is a JPEG or PNG by its name, and not one of the hidden files of editors and systems."""
    hidden = any(part.startswith(".") for part in entry.path.parts)
    return entry.read is not None and not hidden and entry.path.suffix.lower() in SUFFIXES


def square(read: Callable[[], bytes], where: str, shape: tuple[int, int, int]) -> np.ndarray:
    """An image's central square, RGB or grey, of ``shape`` (C, S, S) uint8. Raises UserError if it can't be read."""
    channels, size, _ = shape
    image = centre_crop(decode(read, where), size)
    pixels = np.asarray(image.convert("L") if channels == 1 else image).reshape(size, size, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def decode(read: Callable[[], bytes], where: str) -> Image.Image:
    """An RGB image from the bytes of a JPEG or PNG, upright. Raises UserError if they can't be read, aren't a whole
    one, or say in their header that the image is too large or too long."""
    try:
        content = io.BytesIO(read())
    except DAMAGE as error:
        raise UserError(f"{where}: can't be read ({error}); get the file again") from error
    try:
        image: Image.Image = Image.open(content, formats=("JPEG", "PNG"))
        if image.width * image.height > LARGEST:
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        if max(image.size) > LONGEST * min(image.size):
            raise UserError(
                f"{where}: {image.width} x {image.height} pixels; allowed: a long side of at most {LONGEST} short ones"
                "; crop or remove it"
            )
        image = upright(image)
        if image.mode.startswith("I"):  # 16-bit grey, which PIL would clip at 255 instead of scaling
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{where}: too large to be opened safely ({error}); shrink or remove it") from error
    except Exception as error:  # PIL's plugins raise errors of any kind on broken bytes
        raise UserError(f"{where}: not a whole JPEG or PNG image; replace or remove it") from error


def upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data say that the camera was held. Data that can't be read turn nothing."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # PIL's reader of EXIF raises errors of any kind on broken bytes
        return image


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The central square of an image at (size, size), as in ADM (Dhariwal & Nichol 2021) and hence DiT.

    A box filter halves the image while its short side stays at least ``size``. Then a bicubic filter, which so never
    skips pixels, brings the short side to ``size``, and the middle is cut out.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
