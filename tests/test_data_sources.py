"""Data sources: digits, and folders and archives of images, whole or broken."""

import gzip
import hashlib
import io
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused as in_one_line
from sklearn.datasets import load_digits

from entpruner.data.class_folders import prepare_class_folders
from entpruner.data.images import centre_crop
from entpruner.data.sources import prepare
from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.params.datasets import Digits, ImageFolder

Files = dict[str, bytes]


def picture(seed: int, size: tuple[int, int] = (9, 7), mode: str = "RGB", form: str = "PNG") -> bytes:
    """An encoded random image."""
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "CMYK": (4,)}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    return encoded(Image.fromarray(pixels, mode=mode), form)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def tiny() -> Files:
    """Two classes, two images each to train on and one each to test on, not in sorted order."""
    places = ("val/b c, d/3.png", "train/b c, d/2.png", "train/a/1.jpg", "train/a/0.PNG", "train/b c, d/1.png")
    names = (*places, "val/a/3.jpeg")
    return {name: picture(seed, form="PNG" if "png" in name.lower() else "JPEG") for seed, name in enumerate(names)}


def write_folder(path: Path, files: Files) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_zip(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def tar(members: Iterable[tuple[str, bytes]], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return buffer.getvalue()


def write_tar(path: Path, files: Files, *more: tarfile.TarInfo) -> Path:
    content = tar(files.items(), *more)
    path.write_bytes(content if path.suffix == ".tar" else gzip.compress(content, mtime=0))
    return path


WRITERS = {"data": write_folder, "data.zip": write_zip, "data.tar": write_tar, "data.tar.gz": write_tar}
every_form = pytest.mark.parametrize("form", WRITERS)
every_archive = pytest.mark.parametrize("form", ["data.zip", "data.tar", "data.tar.gz"])


def prepared(path: Path, **settings: object) -> Store:
    out = path.parent / "store"
    prepare(ImageFolder(**{"source": "image_folder", "path": str(path), "image_size": 4, **settings}), out)
    return Store.open(out, verify=True)


def refused(path: Path, *words: str, **settings: object) -> None:
    refused_in(path.parent, lambda: prepared(path, **settings), str(path), *words)


def refused_in(place: Path, job: Callable[[], object], begin: str, *words: str) -> None:
    """It fails with one line that begins so and holds ``words``, and neither writes nor leaves anything in a place."""
    before = sorted(place.rglob("*"))
    with in_one_line(begin, *words):
        job()
    assert sorted(place.rglob("*")) == before


# ------------------------------------------------------------------------------------------------------------ digits


def test_digits_are_the_real_ones_relabelled(tmp_path: Path) -> None:
    prepare(Digits(source="digits", classes=(7, 2)), tmp_path / "digits")
    store = Store.open(tmp_path / "digits", verify=True)
    assert store.class_names == ("7", "2") and store.manifest.shape == (1, 8, 8)
    pixels, digit = load_digits(return_X_y=True)
    stored = {(row.tobytes(), int(label)) for row, label in zip(store.images, store.labels, strict=True)}
    real = {
        (np.array([round(v * 255 / 16) for v in image], dtype=np.uint8).tobytes(), (7, 2).index(name))
        for image, name in zip(pixels, digit, strict=True)
        if name in (7, 2)
    }
    assert stored == real and len(store.labels) == np.isin(digit, (7, 2)).sum()
    assert store.images.min() == 0 and store.images.max() == 255


def test_digits_are_split_by_class_into_the_same_bytes_each_time(tmp_path: Path) -> None:
    prepare(Digits(source="digits", classes=(0, 1, 2, 3, 4), test_fraction=0.25), tmp_path / "digits")
    store = Store.open(tmp_path / "digits")
    train, test = (np.bincount(store.split(name).labels, minlength=5) for name in ("train", "test"))
    assert (abs(test - 0.25 * (train + test)) <= 1).all()
    prepare(Digits(source="digits", classes=(0, 1, 2, 3, 4), test_fraction=0.25), tmp_path / "again")
    for file in store.path.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_digits_do_not_depend_on_the_other_classes(tmp_path: Path) -> None:
    for name, classes in (("all", tuple(range(10))), ("two", (3, 4))):
        prepare(Digits(source="digits", classes=classes), tmp_path / name)
    everything, two = (Store.open(tmp_path / name).split("test") for name in ("all", "two"))
    np.testing.assert_array_equal(everything.images[np.isin(everything.labels, (3, 4))], two.images)


def test_digits_without_test_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test_fraction 0\.001 leaves class 5 no test image"):
        prepare(Digits(source="digits", classes=(5,), test_fraction=0.001), tmp_path / "digits")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------- resize and crop, grey to RGB


def test_an_image_of_the_right_height_is_only_cropped() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 13, 3), dtype=np.uint8)
    np.testing.assert_array_equal(centre_crop(Image.fromarray(pixels), 8), pixels[:, 2:10])
    np.testing.assert_array_equal(
        centre_crop(Image.fromarray(pixels.transpose(1, 0, 2)), 8), pixels.transpose(1, 0, 2)[2:10]
    )


def test_twice_and_four_times_the_size_are_means_of_blocks() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(float)

    def halved(x: np.ndarray) -> np.ndarray:
        x = np.floor((x[:, ::2] + x[:, 1::2] + 1) / 2)  # rows first, rounded half up, as 8-bit filters do
        return np.floor((x[::2] + x[1::2] + 1) / 2)

    image = Image.fromarray(pixels.astype(np.uint8))
    np.testing.assert_array_equal(centre_crop(image, 8), halved(pixels))
    np.testing.assert_array_equal(centre_crop(image, 4), halved(halved(pixels)))


@pytest.mark.parametrize("side", [20, 24, 28, 36, 100])
def test_a_ramp_stays_a_ramp(side: int) -> None:
    ramp = np.tile(np.linspace(10, 240, side), (side, 1))
    small = np.asarray(centre_crop(Image.fromarray(ramp.round().astype(np.uint8)).convert("RGB"), 16))[8, :, 1]
    centres = (np.arange(16) + 0.5) * side / 16 - 0.5
    # inside: at the border the bicubic filter has nothing on one side
    np.testing.assert_allclose(small[2:-2], 10 + 230 * centres[2:-2] / (side - 1), atol=2)


@given(width=st.integers(1, 70), height=st.integers(1, 70), size=st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_every_size_becomes_the_square(width: int, height: int, size: int) -> None:
    result = centre_crop(Image.new("RGB", (width, height), (10, 200, 30)), size)
    assert result.size == (size, size) and (np.asarray(result) == (10, 200, 30)).all()


def test_grey_palette_cmyk_and_16_bit_images_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(0, 256, 16, dtype=np.uint8).reshape(4, 4)
    image = Image.fromarray(grey)
    files = {
        "0.png": encoded(image),
        "1.png": encoded(image.convert("P")),
        "2.png": encoded(image.convert("RGBA")),
        "3.png": encoded(image.convert("LA")),
        "4.png": encoded(Image.fromarray(grey.astype(np.uint16) * 257)),
        "5.jpg": encoded(image.convert("CMYK"), "JPEG"),
    }
    train = {f"train/a/{name}": content for name, content in files.items()}
    store = prepared(write_folder(tmp_path / "data", {**train, "val/a/0.png": files["0.png"]}))
    images = store.split("train").images
    for row in range(5):
        np.testing.assert_array_equal(images[row], np.stack([grey] * 3))
    np.testing.assert_allclose(images[5], np.stack([grey] * 3), atol=12)  # JPEG is lossy


# -------------------------------------------------------------------------------------------- folders and archives


@every_form
def test_layout_becomes_splits_and_sorted_classes(tmp_path: Path, form: str) -> None:
    files = tiny()
    store = prepared(WRITERS[form](tmp_path / form, files))
    assert store.class_names == ("a", "b c, d")
    train, test = store.split("train"), store.split("test")
    assert train.labels.tolist() == [0, 0, 1, 1] and test.labels.tolist() == [0, 1]
    order = sorted(files)
    for row, name in enumerate(order):
        expected = centre_crop(Image.open(io.BytesIO(files[name])), 4)
        np.testing.assert_array_equal(store.images[row].transpose(1, 2, 0), expected)


def test_all_forms_and_orders_give_the_same_files(tmp_path: Path) -> None:
    contents = set()
    for form, write in WRITERS.items():
        for order in (sorted, lambda names: sorted(names, reverse=True)):
            files = tiny()
            place = tmp_path / f"{form}-{len(list(tmp_path.iterdir()))}"
            place.mkdir()
            store = prepared(write(place / form, {name: files[name] for name in order(files)}))
            contents.add(tuple((store.path / file).read_bytes() for file in ("images.npy", "labels.npy")))
    assert len(contents) == 1


@every_archive
def test_the_manifest_knows_the_archive(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path / form, tiny())
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    once = prepared(path)
    assert once.manifest.source["sha256"] == checksum and once.manifest.source["image_size"] == 4
    manifest = (once.path / "manifest.json").read_bytes()
    again = prepared(path, sha256=checksum)
    assert (again.path / "manifest.json").read_bytes() == manifest


@every_form
def test_litter_is_left_aside(tmp_path: Path, form: str) -> None:
    litter = {
        "README.md": b"about",
        "train/list.txt": b"",
        "train/a/notes.txt": b"",
        "train/a/._1.jpg": b"junk",
        "train/.cache/1.jpg": b"junk",
        "__MACOSX/train/a/1.jpg": b"junk",
        "unlabelled/c/1.jpg": b"junk",
    }
    assert prepared(WRITERS[form](tmp_path / form, {**litter, **tiny()})).class_names == ("a", "b c, d")


def test_a_plain_tar_may_be_called_gzipped(tmp_path: Path) -> None:
    assert prepared(write_tar(tmp_path / "data.tar", tiny()).rename(tmp_path / "data.tar.gz")).manifest.count == 6


def test_a_tar_of_the_current_folder(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "data.tar", {f"./{name}": content for name, content in tiny().items()})
    assert prepared(path).manifest.count == 6


# --------------------------------------------------------------------------------------------------------- bad input


def test_missing_path(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.zip", "no such file or folder")


def test_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "data.rar").write_bytes(b"Rar!")
    refused(tmp_path / "data.rar", ".zip or .tar")


@every_archive
def test_not_an_archive(tmp_path: Path, form: str) -> None:
    for content in (b"", b"<html>not found</html>" * 50):
        (tmp_path / form).write_bytes(content)
        refused(tmp_path / form, "truncated or damaged archive")


@every_archive
def test_wrong_checksum(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path / form, tiny())
    refused(path, hashlib.sha256(path.read_bytes()).hexdigest(), "0" * 64, sha256="0" * 64)


@pytest.mark.parametrize("form", ["data.tar", "data.tar.gz"])
def test_an_image_that_is_in_a_tar_twice(tmp_path: Path, form: str) -> None:
    member = tarfile.TarInfo("train/a/1.jpg")
    refused(write_tar(tmp_path / form, tiny(), member), "'train/a/1.jpg' is there twice")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@every_archive
def test_an_image_that_is_in_an_archive_of_ones_own_twice(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path / form, {"a/1.png": picture(0), "b/1.png": picture(1)})
    if form == "data.zip":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("a/1.png", picture(2))
    else:
        write_tar(path, {"a/1.png": picture(0), "./a/1.png": picture(2), "b/1.png": picture(1)})
    store = tmp_path / "store"
    refused_in(tmp_path, lambda: prepare_class_folders(path, store, 8, 3), str(path), "'a/1.png' is there twice")


def test_a_checksum_for_a_folder(tmp_path: Path) -> None:
    refused(write_folder(tmp_path / "data", tiny()), "a folder has no checksum", sha256="0" * 64)


@every_form
def test_missing_split(tmp_path: Path, form: str) -> None:
    path = WRITERS[form](tmp_path / form, tiny())
    refused(path, "no split 'test'", "'train', 'val'", test="test")


@every_form
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_without_images_in_a_split(tmp_path: Path, form: str, split: str) -> None:
    other = "val" if split == "train" else "train"
    files = {**tiny(), f"{other}/rose/1.png": picture(0), f"{split}/rose/about.txt": b""}
    refused(WRITERS[form](tmp_path / form, files), "'rose'", f"{split!r}")


@every_form
def test_an_empty_class_folder(tmp_path: Path, form: str) -> None:
    path = tmp_path / form
    if form == "data":
        for split in ("train", "val"):
            (write_folder(path, tiny()) / split / "rose").mkdir()
    elif form == "data.zip":
        write_zip(path, {**tiny(), "train/rose/": b"", "val/rose/": b""})
    else:
        folders = [tarfile.TarInfo("train/rose"), tarfile.TarInfo("val/rose")]
        for folder in folders:
            folder.type = tarfile.DIRTYPE
        write_tar(path, tiny(), *folders)
    refused(path, "'rose'", "'train'")


def test_no_classes(tmp_path: Path) -> None:
    files = {"train/1.jpg": picture(0), "val/1.jpg": picture(1)}
    refused(write_folder(tmp_path / "data", files), "no class folders")


@every_form
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_unreadable_or_truncated_image(tmp_path: Path, form: str, kind: str) -> None:
    whole = picture(0, (40, 40), form=kind)
    for content in (b"", b"not an image", whole[: len(whole) // 2]):
        path = WRITERS[form](tmp_path / form, {**tiny(), "train/a/7.jpg": content})
        refused(path, "train/a/7.jpg", "not a whole JPEG or PNG")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # PIL only warns of it; we refuse
def test_a_decompression_bomb(tmp_path: Path) -> None:
    """A PNG of a few bytes that says it has 100 million pixels: above PIL's limit, below twice that."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path = write_zip(tmp_path / "data.zip", {**tiny(), "val/a/bomb.png": bomb})
    refused(path, "val/a/bomb.png", "too large")


def png(width: int, height: int) -> bytes:
    """A whole black PNG, of a few hundred bytes however long it is."""
    return encoded(Image.new("1", (width, height)))


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000), (1020, 20)])
def test_an_image_far_longer_than_wide(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_zip(tmp_path / "data.zip", {**tiny(), "val/a/line.png": png(*size)})
    refused(path, "val/a/line.png", f"{size[0]} x {size[1]} pixels", "allowed: a long side of at most 50 short ones")


def test_a_panorama_is_cropped(tmp_path: Path) -> None:
    assert prepared(write_zip(tmp_path / "data.zip", {**tiny(), "val/a/wide.png": png(1000, 20)})).manifest.count == 7


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_a_photo_stands_as_its_camera_says(tmp_path: Path, form: str, orientation: int, turned: int) -> None:
    """EXIF's orientation says by how many quarter turns a camera was held; ``turned`` counts them to the left."""
    image = Image.fromarray(np.kron(np.array([[0, 60], [120, 240]], dtype=np.uint8), np.ones((8, 8), dtype=np.uint8)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, form, exif=exif)
    train = {"train/a/0.jpg": buffer.getvalue(), "val/a/0.png": encoded(image)}
    store = prepared(write_folder(tmp_path / "data", train), image_size=16)
    turned_pixels = np.rot90(np.asarray(image), turned)
    np.testing.assert_allclose(store.split("train").images[0, 0].astype(int), turned_pixels.astype(int), atol=12)


def test_exif_that_is_broken_turns_nothing(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(buffer, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\1\2")
    path = write_folder(tmp_path / "data", {**tiny(), "train/a/exif.jpg": buffer.getvalue()})
    assert prepared(path).manifest.count == 7


def huge_tar(path: Path, member: str, size: int, gzipped: bool = False) -> Path:
    """A tar that says a member has ``size`` bytes, and ends there."""
    info = tarfile.TarInfo(member)
    info.size = size
    content = tar(tiny().items())[: -2 * tarfile.BLOCKSIZE].rstrip(b"\0")
    content += bytes(-len(content) % tarfile.BLOCKSIZE) + info.tobuf()
    path.write_bytes(gzip.compress(content) if gzipped else content)
    return path


@pytest.mark.parametrize("form", ["data.tar", "data.tar.gz"])
def test_a_member_that_is_too_large_for_an_image_is_refused_by_its_header(tmp_path: Path, form: str) -> None:
    path = huge_tar(tmp_path / form, "train/a/7.png", 2**30, gzipped=form.endswith("gz"))
    refused(path, "train/a/7.png", "1,073,741,824 bytes; allowed: at most 268,435,456")


def test_a_zip_whose_member_is_too_large(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {**tiny(), "train/a/7.png": picture(1)})
    content = path.read_bytes()
    first = content.rindex(b"PK\x01\x02")  # the central directory's last entry, whose bytes 24 to 28 are a size
    path.write_bytes(content[: first + 24] + struct.pack("<I", 2**30) + content[first + 28 :])
    refused(path, "train/a/7.png", "1,073,741,824 bytes; allowed: at most 268,435,456")


def test_a_sparse_member_of_a_tar(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**40)}
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("train/a/7.png")
        member.size, member.pax_headers = 1, headers
        archive.addfile(member, io.BytesIO(b"x"))
    refused(path, "train/a/7.png", "a sparse file")


def test_what_follows_a_gzipped_tar_is_not_read_for_ever(tmp_path: Path) -> None:
    content = io.BytesIO()
    with gzip.open(content, "wb", compresslevel=1) as file:
        file.write(tar(tiny().items()))
        for _ in range(20):
            file.write(bytes(2**24))
    (tmp_path / "data.tar.gz").write_bytes(content.getvalue())
    refused(tmp_path / "data.tar.gz", "truncated or damaged archive", "behind its end")


@pytest.mark.parametrize("device", ["pipe", "/dev/zero"])
def test_a_pipe_or_device_is_no_image_and_no_archive(tmp_path: Path, device: str) -> None:
    folder = write_folder(tmp_path / "data", tiny())
    archive = tmp_path / "data.zip"
    for path in (folder / "train/a/7.png", archive):
        os.mkfifo(path) if device == "pipe" else path.symlink_to(device)
    refused(folder, "train/a/7.png", "can't be read (it is no file, but a device or pipe)")
    refused(archive, "no such file or folder")


@every_archive
@pytest.mark.parametrize(
    "name", ["../x.png", "train/a/../../../x.png", "/etc/x.png", "..\\x.png", "C:\\x.png", "C:x.png"]
)
def test_a_path_that_climbs_out(tmp_path: Path, form: str, name: str) -> None:
    refused(WRITERS[form](tmp_path / form, {**tiny(), name: picture(0)}), repr(name), "climbs out")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_tar(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("train/a/link.png")
    member.type, member.linkname = kind, "train/a/1.jpg"
    refused(write_tar(tmp_path / "data.tar", tiny(), member), "train/a/link.png", "link or device")


def test_a_symlink_in_a_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", tiny())
    link = zipfile.ZipInfo("train/a/link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    refused(path, "train/a/link.png", "link or device")


def test_a_member_whose_bytes_are_wrong(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", tiny())
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("train/a/1.jpg")
    content[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path, "train/a/1.jpg")


@every_archive
def test_a_line_break_in_a_name_does_not_break_the_message(tmp_path: Path, form: str) -> None:
    refused(WRITERS[form](tmp_path / form, {**tiny(), "train/a\nb/1.png": picture(0)}), r"'a\nb'")
    refused(WRITERS[form](tmp_path / form, {**tiny(), "train/a/1\n.png": b""}), r"'train/a/1\n.png'")


def test_an_encrypted_member(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", tiny())
    content = path.read_bytes()
    first = content.index(b"PK\x01\x02")  # the central directory's first entry; bit 0 of its flags says encrypted
    path.write_bytes(content[: first + 8] + b"\x01" + content[first + 9 :])
    refused(path, "val/b c, d/3.png", "can't be read")


@every_archive
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_truncated_archive_gives_a_store(form: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = WRITERS[form](Path(place) / form, tiny())
        content = path.read_bytes()
        # a tar ends in zero blocks: with the first of them it is whole
        end = (
            len(content.rstrip(b"\0")) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE if form == "data.tar" else len(content)
        )
        cut = data.draw(st.integers(0, end - 1) | st.integers(0, end // 512 - 1).map(lambda block: block * 512))
        os.truncate(path, cut)
        refused(path)


@every_archive
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_archive_gives_a_store_or_one_line(form: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        path = WRITERS[form](Path(place) / form, tiny())
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            prepared(path)
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
            assert [file.name for file in Path(place).iterdir()] == [form]
