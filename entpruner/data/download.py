"""Large files from the web: gone on with after a cut, held against a checksum, there as a whole or not at all."""

import http.client
import logging
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from entpruner.errors import UserError
from entpruner.system.files import require_space, sha256_of, sync

CHUNK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds in which nothing comes
ATTEMPTS = 5  # connections in a row that bring nothing
PAUSE = 1.0  # seconds before another connection; doubled with each in a row that brought nothing
REPORT = 10.0  # seconds between two lines that say how far it is
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP answers after which it is worth trying again

logger = logging.getLogger(__name__)


class CutError(Exception):
    """A connection that ended before the file did, or never began."""


def download(url: str, sha256: str, out: Path) -> None:
    """Fetch an http or https ``url`` to ``out``, a file with this checksum; one that is there already is only checked.

    What has come lies in ``<out>.partial`` until all is there. A cut connection is taken up again where it ended, by
    HTTP's Range, and so is a download that was given up or killed. Raises UserError if the server refuses, can't be
    reached or cuts again and again, if the disk has no room for the file, or if its checksum is another one.
    """
    if out.exists():
        if (found := sha256_of(out)) != sha256:
            raise UserError(f"{out}: its sha256 is {found}, expected {sha256}; delete it, or correct sha256")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    in_pieces = collect(url, partial)
    if in_pieces and sha256_of(partial) != sha256:  # perhaps pieces of two versions of the file
        partial.unlink()
        collect(url, partial)
    if (found := sha256_of(partial)) != sha256:
        partial.unlink()
        raise UserError(f"{url}: what it serves has sha256 {found}, expected {sha256}; correct url or sha256")
    sync(partial)
    partial.rename(out)
    sync(out.parent)


def collect(url: str, partial: Path) -> bool:
    """Fetch all that ``partial`` still lacks. True if its bytes came over more than one connection."""
    in_pieces, idle = False, 0
    while True:
        had = size_of(partial)
        in_pieces |= had > 0
        try:
            receive(url, partial, had)
        except CutError as error:
            idle = idle + 1 if size_of(partial) <= had else 0
            if idle == ATTEMPTS:
                begin = f"it goes on from {size_of(partial) / 1e6:.1f} MB"
                raise UserError(f"{url}: {error}; run the same command again: {begin}") from error
            logger.info(f"{partial.stem}: {error}; going on from {size_of(partial) / 1e6:.1f} MB")
            time.sleep(PAUSE * 2**idle)
        else:
            return in_pieces


def receive(url: str, partial: Path, had: int) -> None:
    """Over one connection, append to the ``had`` bytes of ``partial``, or begin anew if the server knows no ranges."""
    headers = {"User-Agent": "entpruner", **({"Range": f"bytes={had}-"} if had else {})}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)  # noqa: S310  (Origin allows http(s) only)
    except HTTPError as error:
        if error.code == 416 and had:  # there is nothing beyond what is here: its checksum will tell if it is the file
            return
        if error.code in TRANSIENT:
            raise CutError(f"the server answers {error.code} {error.reason}") from error
        answer = f"the server answers {error.code} {error.reason}"
        raise UserError(f"{url}: {answer}; correct url, or get the file yourself and give path") from error
    except (URLError, OSError, http.client.HTTPException) as error:
        raise CutError(f"no connection ({error.reason if isinstance(error, URLError) else error})") from error
    with response:
        if response.status == 206 and first_byte(response) != had:
            partial.unlink(missing_ok=True)
            raise CutError("the server answered with another range than was asked for")
        begin = had if response.status == 206 else 0
        to_come = response.length  # None if the server does not tell
        require_space(partial.parent, to_come or 0, what=url)
        progress = Progress(partial.stem, begin, to_come)
        with partial.open("ab" if begin else "wb") as file:
            for chunk in chunks(response):
                file.write(chunk)
                progress.add(len(chunk))
        if to_come is not None and progress.came < to_come:
            raise CutError(f"cut off {(to_come - progress.came) / 1e6:.1f} MB before the end")


def first_byte(response: http.client.HTTPResponse) -> int | None:
    """Where the range that the server sends begins."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What comes over a connection, up to its end. Raises CutError if that is an error."""
    try:
        while chunk := response.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise CutError(f"cut off ({error})") from error


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class Progress:
    """Says now and then how much has come, how fast, and how long the rest will take."""

    def __init__(self, name: str, begin: int, to_come: int | None) -> None:
        self.name, self.begin, self.to_come = name, begin, to_come
        self.came = 0  # bytes, over this connection
        self.started = self.told = time.monotonic()

    def add(self, size: int) -> None:
        self.came += size
        now = time.monotonic()
        if now - self.told < REPORT:
            return
        self.told = now
        rate = self.came / (now - self.started)  # bytes per second
        whole, left = "", ""
        if self.to_come is not None:
            whole = f" of {(self.begin + self.to_come) / 1e6:,.0f}"
            left = f", {timedelta(seconds=round((self.to_come - self.came) / rate))} left"
        logger.info(f"{self.name}: {(self.begin + self.came) / 1e6:,.0f}{whole} MB, {rate / 1e6:.1f} MB/s{left}")
