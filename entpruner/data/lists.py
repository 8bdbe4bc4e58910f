"""Readers of the files in which original data sets keep labels and splits: lists of text, and MATLAB's .mat."""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
from scipy.io import loadmat

from entpruner.data.archives import DAMAGE, Entry
from entpruner.errors import UserError


def content_of(entries: Sequence[Entry], name: str, where: str) -> bytes:
    """The bytes of one file. Raises UserError if it isn't there or can't be read."""
    read = next((entry.read for entry in entries if entry.path == PurePosixPath(name)), None)
    if read is None:
        raise UserError(f"{where}: no {name} in it; give the data set as it was distributed")
    try:
        return read()
    except DAMAGE as error:
        raise UserError(f"{where}: {name} can't be read ({error}); get the file again") from error


def numbered(content: bytes, where: str) -> dict[int, str]:
    """The text by its number, from lines such as ``17 002.Laysan_Albatross/Laysan_Albatross_0002_1027.jpg``.

    Raises UserError, which names the line, if one has another form or a number comes twice.
    """
    found: dict[int, str] = {}
    for place, line in lines(content, where):
        number, _, text = line.partition(" ")
        if not (number.isdecimal() and text.strip()):
            raise UserError(f"{place}: {line[:60]!r} is not a number and what it stands for; get the file again")
        if int(number) in found:
            raise UserError(f"{place}: number {number} is listed twice; remove one")
        found[int(number)] = text.strip()
    return found


def lines(content: bytes, where: str) -> Iterator[tuple[str, str]]:
    """The lines that are not empty, each behind what messages call it. Raises UserError if it is no text."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not a text file; get the file again") from error
    yield from ((f"{where}, line {i}", line) for i, line in enumerate(text.splitlines(), start=1) if line.strip())


def read_mat(content: bytes, names: Sequence[str], where: str) -> list[np.ndarray]:
    """Variables of a .mat file (of MATLAB 4 to 7.2), without dimensions of length 1. No code in it is executed.

    Raises UserError if it is no such file or lacks a variable.
    """
    try:
        found = loadmat(io.BytesIO(content), squeeze_me=True, variable_names=list(names))
    except Exception as error:  # scipy's reader raises errors of any kind on broken bytes
        raise UserError(f"{where}: not a whole .mat file of MATLAB 4 to 7.2; get the file again") from error
    for name in names:
        if name not in found:
            raise UserError(f"{where}: no variable {name} in it; get the file again")
    return [np.atleast_1d(found[name]) for name in names]


def whole_numbers(values: np.ndarray, where: str) -> list[int]:
    """The numbers of an array (N,). Raises UserError if they are no whole numbers."""
    whole = values.ndim == 1 and values.dtype.kind in "iuf" and np.isfinite(values).all() and (values % 1 == 0).all()
    if not whole:
        raise UserError(f"{where}: not a list of whole numbers; get the file again")
    return [int(value) for value in values]
