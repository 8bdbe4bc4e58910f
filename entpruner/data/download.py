"""Downloads of large files: a cut download goes on where it ended, and a checksum decides whether the file is right."""

import logging
import time
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from entpruner.errors import UserError
from entpruner.system.files import require_space, sha256_of, sync

CHUNK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds in which nothing comes
ATTEMPTS = 5  # connections in a row that bring nothing
PAUSE = 1.0  # seconds before another connection; doubled with each in a row that brought nothing
REPORT = 10.0  # seconds between two lines that say how far it is
SHOWN = "{n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left"  # such a line, as tqdm fills it in
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP answers after which it is worth trying again

logger = logging.getLogger(__name__)


class CutError(Exception):
    """A connection ended before the file did, or it could not be made."""


def download(url: str, sha256: str, out: Path) -> None:
    """Fetch an http or https ``url`` to ``out``, a file with this checksum. If ``out`` exists it is only checked.

    The bytes lie in ``<out>.partial`` until all are there. When a connection is cut, the next one asks for the rest by
    HTTP's Range; so does the next call after a download was given up or killed. Raises UserError if the server refuses,
    can't be reached or cuts again and again, if the disk has no room for the file, or if its checksum is another one.
    """
    if out.exists():
        if (found := sha256_of(out)) != sha256:
            raise UserError(f"{out}: its sha256 is {found}, expected {sha256}; delete it, or correct sha256")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    in_pieces = collect(url, partial)
    if in_pieces and sha256_of(partial) != sha256:  # the pieces may be of two versions of the file
        partial.unlink()
        collect(url, partial)
    if (found := sha256_of(partial)) != sha256:
        partial.unlink()
        raise UserError(f"{url}: what it serves has sha256 {found}, expected {sha256}; correct url or sha256")
    sync(partial)
    partial.rename(out)
    sync(out.parent)


def collect(url: str, partial: Path) -> bool:
    """Fetch all that ``partial`` still lacks. Returns whether its bytes came over more than one connection."""
    in_pieces, idle = False, 0
    while True:
        had = size_of(partial)
        in_pieces |= had > 0
        try:
            receive(url, partial, had)
        except CutError as error:
            idle = idle + 1 if size_of(partial) <= had else 0
            begin = f"from {size_of(partial) / 1e6:.1f} MB"
            if idle == ATTEMPTS:
                raise UserError(f"{url}: {error}; run the same command again: it goes on {begin}") from error
            logger.info(f"{partial.stem}: {error}; going on {begin}")
            time.sleep(PAUSE * 2**idle)
        else:
            return in_pieces


def receive(url: str, partial: Path, had: int) -> None:
    """Append to the ``had`` bytes of ``partial`` over one connection; begin anew if the server does not know ranges."""
    headers = {"User-Agent": "entpruner", "Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
    failure = "no connection"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            failure = "cut off"
            if response.status_code == 416 and had:  # nothing is beyond what is here: its checksum says if it is right
                return
            answer = f"the server answers {response.status_code} {response.reason}"
            if response.status_code in TRANSIENT:
                raise CutError(answer)
            if not response.ok:
                raise UserError(f"{url}: {answer}; correct url, or get the file yourself and give path")
            begin = had if response.status_code == 206 else 0
            if begin and not response.headers.get("Content-Range", "").startswith(f"bytes {had}-"):
                partial.unlink()
                raise CutError("the server answered with another range than was asked for")
            save(response, partial, begin, url)
    except (requests.RequestException, HTTPError) as error:
        raise CutError(f"{failure} ({root_cause(error)})") from error


def save(response: requests.Response, partial: Path, begin: int, url: str) -> None:
    """Write what comes behind the first ``begin`` bytes of ``partial``, and say now and then how far it is."""
    to_come = response.raw.length_remaining  # None if the server does not tell
    require_space(partial.parent, to_come or 0, what=url)
    size = None if to_come is None else begin + to_come
    started = told = time.monotonic()
    with partial.open("ab" if begin else "wb") as file:
        for chunk in response.raw.stream(CHUNK, decode_content=False):
            file.write(chunk)
            now = time.monotonic()
            if now - told >= REPORT:
                told = now
                shown = {"initial": begin, "unit": "B", "unit_scale": True, "bar_format": SHOWN}
                logger.info(f"{partial.stem}: {tqdm.format_meter(file.tell(), size, now - started, **shown)}")


def root_cause(error: BaseException) -> BaseException:
    """The first error of a chain, such as the refused connection below what requests and urllib3 say of it."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
