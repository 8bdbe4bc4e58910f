"""One's own images as a data store: a folder or archive of ``<class>/*.jpg|png``, or of images of one class."""

from pathlib import Path

from entpruner.data.archives import opened
from entpruner.data.images import SUFFIXES, is_picture
from entpruner.data.labelled import checked_sha256, write_images
from entpruner.errors import UserError


def prepare_class_folders(path: Path, out: Path, size: int, channels: int, threads: int = 1) -> None:
    """A store of square images (channels, size, size), grey or RGB, all in the split ``train``.

    Classes are the sorted names of the folders that hold images; images that lie in no folder are one class, named
    ``images``. Raises UserError, and leaves no store, if there are no images, if some lie in folders and some don't, or
    if one is there twice or can't be read.
    """
    if not (path.is_file() or path.is_dir()):  # a pipe is neither, and never ends
        raise UserError(f"{path}: no such file or folder; give a folder of <class>/*.jpg or .png")
    with opened(path) as entries:
        images = sorted({entry.path for entry in filter(is_picture, entries) if len(entry.path.parts) <= 2})
        folders = sorted({image.parent.name for image in images})
        if not images:
            deeper = next((entry.path for entry in entries if entry.path.suffix.lower() in SUFFIXES), None)
            where = f", only deeper, as {str(deeper)!r}" if deeper else ""
            raise UserError(
                f"{path}: no .jpg or .png in it or its folders{where}; give a folder of <class>/*.jpg or .png"
            )
        if "" in folders and len(folders) > 1:
            raise UserError(f"{path}: images in folders and beside them; put all in folders, one a class, or none")
        splits = {"train": [(image, folders.index(image.parent.name)) for image in images]}
        class_names = [folder or "images" for folder in folders]
        source, checksum = {"source": "class_folders", "path": str(path)}, checked_sha256(path)
        write_images(out, path, entries, splits, class_names, (channels, size, size), source, threads, checksum)
