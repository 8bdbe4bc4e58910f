"""Input that nobody would write is refused in lines that say what is wrong, or taken, and never ends in a traceback.

``make fuzz`` tries many more examples of each kind, and others each time. A case that it finds belongs into a test of
its own.
"""

import copy
import io
import json
import os
import resource
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save
from test_checkpoints import ARCHITECTURE, network
from test_data_sources import tar, tiny, write_zip
from test_params import RICH, STUDY

from entpruner.data.class_folders import prepare_class_folders
from entpruner.data.images import square
from entpruner.errors import UserError
from entpruner.models.checkpoints import load_official
from entpruner.params.files import check, read_study
from entpruner.study.resolved import ResolvedStudy

EXAMPLES = int(os.environ.get("FUZZ", "0"))
LONGEST = 5  # seconds of the CPU for one example, which other processes on the machine hardly change
LARGEST = 2**30  # bytes of memory at most, libraries and all


def fuzzed(few: int) -> Callable[[Any], Any]:
    """So many examples, always the same; or as many as ``FUZZ`` says, and others each time."""
    if not EXAMPLES:
        return settings(max_examples=few)
    return settings(max_examples=EXAMPLES, derandomize=False, suppress_health_check=list(HealthCheck))


def refused_or_taken(job: Callable[[], Any]) -> None:
    """It ends in time, with a UserError of whole lines or with none."""
    began = time.process_time()
    try:
        job()
    except UserError as error:
        assert str(error).isprintable() or all(line.isprintable() for line in str(error).splitlines()), repr(error)
        assert len(str(error)) < 100_000
    if EXAMPLES:  # without, no test depends on how fast the machine is
        assert time.process_time() - began < LONGEST
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < LARGEST


def places(values: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The key path of each value within others."""
    if place:
        yield place
    for key in keys(values):
        yield from places(values[key], (*place, key))


def keys(values: Any) -> list[str | int]:
    return list(values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ())


STUDIES = [check(config).model_dump(mode="json") for config in (STUDY, RICH)]
SCALARS = st.none() | st.booleans() | st.text(max_size=20) | st.integers() | st.floats()
LARGE = st.sampled_from([0, -1, 10**6, 10**9, 10**12, 10**13, 10**400, 1e308, 5e-324, "", "\0", "../x", "é" * 5000])
VALUES = st.recursive(
    SCALARS | LARGE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, Any]:
    """A sound study with one to three values replaced, removed, renamed or copied from elsewhere."""
    config: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(STUDIES)))
    for _ in range(draw(st.integers(1, 3))):
        *path, last = draw(st.sampled_from(list(places(config))))
        inner: Any = config
        for key in path:
            inner = inner[key]
        match draw(st.sampled_from(["replace", "copy", "remove", "rename"])):
            case "replace":
                inner[last] = draw(VALUES)
            case "copy":
                inner[last] = copy.deepcopy(inner[draw(st.sampled_from(keys(inner)))])
            case "remove":
                del inner[last]
            case "rename":
                if isinstance(inner, dict):
                    inner[draw(st.text(max_size=9))] = inner.pop(last)
    return config


@fuzzed(40)
@given(mutants())
def test_params(config: dict[str, Any]) -> None:
    refused_or_taken(lambda: ResolvedStudy(check(config)).absent())


PIECES = st.sampled_from(
    [
        *("a: ", "b", "- ", "[", "]", "{", "}", ", ", "\n", "\n  ", "&x ", "*x", "<<: ", "!!int ", "!!set ", "? "),
        *("'", ": ", "|\n ", '"\\ud800"', "#", "%", "@", "1e5", "0x1", "1:60", "~", "\t", "---\n", "\x00", "\ufeff"),
        "2026-01-01",
    ]
)  # fmt: skip


@fuzzed(60)
@given(st.lists(PIECES, max_size=40).map("".join).map(str.encode) | st.binary(max_size=60))
def test_yaml(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_bytes(text)
        refused_or_taken(lambda: read_study([file]))


def saved(weights: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(weights, buffer)
    return buffer.getvalue()


WEIGHTS = network().state_dict()
MODEL_FILES = {".pt": saved(WEIGHTS), ".safetensors": save(WEIGHTS)}
HEADERS = st.dictionaries(
    st.sampled_from(list(WEIGHTS)) | st.text(max_size=5),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F64", "X", 3]),
            "shape": st.lists(st.integers(-1, 10) | st.sampled_from([2**31, 2**62, 2**64]), max_size=4),
            "data_offsets": st.lists(st.integers(-1, 100) | st.sampled_from([2**40, 2**63]), min_size=1, max_size=3),
        }
    ),
    max_size=4,
)


def safetensors_of(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(400)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes with some changed, cut out, or doubled."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(changed) - 1))
        match draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                changed[at] ^= draw(st.integers(1, 255))
            case "cut":
                del changed[at : at + draw(st.integers(1, 2000))]
            case "insert":
                changed[at:at] = draw(st.binary(min_size=1, max_size=20))
        changed = changed or bytearray(b"\0")
    return bytes(changed)


@fuzzed(30)
@given(
    st.one_of(
        *(st.tuples(st.just(suffix), damaged(content)) for suffix, content in MODEL_FILES.items()),
        st.tuples(st.just(".safetensors"), HEADERS.map(safetensors_of)),
    )
)
def test_model_files(file: tuple[str, bytes]) -> None:
    suffix, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{suffix}"
        path.write_bytes(content)
        refused_or_taken(lambda: load_official(path, ARCHITECTURE))


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((40, 30), 60).convert("RGB").save(buffer, form, exif=exif)
    return buffer.getvalue()


@fuzzed(40)
@given(st.one_of(damaged(encoded("JPEG")), damaged(encoded("PNG"))))
def test_images(content: bytes) -> None:
    refused_or_taken(lambda: square(lambda: content, "photo.jpg", (3, 8, 8)))


def zipped() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_zip(Path(folder) / "data.zip", tiny()).read_bytes()


ARCHIVES = {".zip": zipped(), ".tar": tar((name.replace("train/", ""), content) for name, content in tiny().items())}


@fuzzed(20)
@given(st.one_of(*(st.tuples(st.just(suffix), damaged(content)) for suffix, content in ARCHIVES.items())))
def test_archives(file: tuple[str, bytes]) -> None:
    suffix, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"photos{suffix}"
        path.write_bytes(content)
        refused_or_taken(lambda: prepare_class_folders(path, Path(folder) / "store", 8, 3))
