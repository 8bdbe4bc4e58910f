"""A store's images from encoded pictures, batch by batch: decoded by several threads, and gone on with after a kill.

    <out>.resume/<fingerprint>.npy    all images, of which some are written
    <out>.resume/<fingerprint>.jsonl  the batches that are, and the checksum of each: a journal

Once all are written the file moves into the store ``out``.
"""

import fcntl
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from entpruner.data.archives import DAMAGE, Entry
from entpruner.data.images import square
from entpruner.data.rows import RowFile, kept_when_full
from entpruner.data.store import IMAGES, vouch
from entpruner.errors import Stopped, UserError
from entpruner.system.files import whole_folder
from entpruner.system.journal import Journal
from entpruner.system.provenance import code_digest
from entpruner.system.stopping import StopRequest

BATCH = 256  # pictures whose images are forced to the disk together: a kill loses one batch
AHEAD = 4  # pictures a thread that are read before they can be written
SAID = 10_000  # pictures between two lines of the log

log = logging.getLogger(__name__)

Pictures = Sequence[tuple[int, Entry]]  # row of each in the store; in the order in which they are read fastest


class Batch(NamedTuple):
    name: str
    """Digest of the pictures' rows, names and versions: another picture, another batch."""
    rows: np.ndarray  # (B,) int64


class Listing:
    """Pictures that are listed together. Their list is made anew where it is needed: one of all could be large."""

    def __init__(self, path: Path, listed: Callable[[], Pictures]) -> None:
        """``path`` is what messages call their folder or archive."""
        self.path, self.listed = path, listed
        self.batches = [
            Batch(
                name=digest([[row, str(entry.path), entry.version()] for row, entry in pictures]),
                rows=np.array([row for row, _ in pictures]),
            )
            for pictures in self.batched()
        ]

    def batched(self) -> Iterator[Pictures]:
        """The pictures of each batch."""
        pictures = self.listed()
        return (pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH))

    def __len__(self) -> int:
        return sum(len(batch.rows) for batch in self.batches)


def write_pictures(
    out: Path,
    listings: Sequence[Listing],
    labels: np.ndarray,
    counts: Mapping[str, int],
    shape: tuple[int, int, int],
    class_names: Sequence[str],
    source: dict[str, Any],
    threads: int,
    checksum: str | None = None,
) -> None:
    """A store of the listings' pictures and a label (N,) int64 for each row; ``counts`` and so on as in ``new_store``.

    Its bytes depend neither on the number of threads, which decode while this one reads and writes, nor on kills: the
    same call goes on after the last batch that reached the disk. ``checksum`` is that of the source, where ``source``
    does not say it. Raises UserError if an image can't be read (of several, the one that is read first), if the disk is
    too small or runs full, or if another process is writing this store; Stopped on SIGTERM, after the batch.
    """
    fingerprint = digest([source, checksum, dict(counts), shape, code_digest(__name__)])
    folder = out.with_name(out.name + ".resume")
    images = RowFile(folder / f"{fingerprint[:16]}.npy", np.uint8, (len(labels), *shape))
    with kept_when_full(folder), journal_of(folder, fingerprint) as journal:
        images.create(f"the images of {out}")
        forget_damaged(journal, images, listings)
        write_missing(journal, images, listings, shape, threads)
        with whole_folder(out) as store:
            images.move(store / IMAGES)
            vouch(store, labels, counts, shape, class_names, source)


@contextmanager
def journal_of(folder: Path, fingerprint: str) -> Iterator[Journal]:
    """The journal in ``folder``, which goes when the block ends well, or when nothing is in it.

    What was begun under another fingerprint goes first. Raises UserError while another process is in such a block; on
    a file system that can't lock, both write the same, and the second fails when the first takes the folder away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / "lock"
    with lock.open("a") as file:
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: another process is writing this store; let it end, or end it") from None
        for other in folder.iterdir():
            if other != lock and not other.name.startswith(fingerprint[:16]):
                log.info("%s is from other settings, images or code: deleted", other)
                other.unlink()
        journal, whole = Journal(folder, fingerprint), False
        try:
            yield journal
            whole = True
        finally:
            if whole or not journal.done:
                journal.discard()


def forget_damaged(journal: Journal, images: RowFile, listings: Sequence[Listing]) -> None:
    """Drop the batches whose images are not what was written: a machine that went down may have lost them."""
    for batch in (batch for listing in listings for batch in listing.batches if batch.name in journal.done):
        checksum = hashlib.sha256()
        for image in images.read(batch.rows):
            checksum.update(image)
        if checksum.hexdigest() != journal.done[batch.name]:
            log.warning("%s: rows from %d on are not what was written there: once more", images.path, batch.rows[0])
            del journal.done[batch.name]


def write_missing(
    journal: Journal, images: RowFile, listings: Sequence[Listing], shape: tuple[int, int, int], threads: int
) -> None:
    """Write the batches that the journal does not have, one after the other."""
    missing = [batch for listing in listings for batch in listing.batches if batch.name not in journal.done]
    count, done = sum(map(len, listings)), sum(map(len, listings)) - sum(len(batch.rows) for batch in missing)
    with StopRequest() as stop, ThreadPoolExecutor(threads) as pool:
        pictures = missing_pictures(listings, {batch.name for batch in missing})
        coming = decoded(pictures, shape, pool, AHEAD * threads)
        for batch in missing:
            if stop.made:
                raise Stopped(f"asked to stop, kept {done} of {count} images: run the same command again to go on")
            journal.record(batch.name, partial(write_batch, images, islice(coming, len(batch.rows))))
            done += len(batch.rows)
            if done // SAID > (done - len(batch.rows)) // SAID:
                log.info("%d of %d images", done, count)


def missing_pictures(listings: Sequence[Listing], names: set[str]) -> Iterator[tuple[int, str, Entry]]:
    """Row, what messages call it, and entry of each picture of these batches."""
    for listing in listings:
        if names.isdisjoint(batch.name for batch in listing.batches):
            continue
        for batch, pictures in zip(listing.batches, listing.batched(), strict=True):
            if batch.name in names:
                yield from ((row, f"{listing.path}: {str(entry.path)!r}", entry) for row, entry in pictures)


def decoded(
    pictures: Iterable[tuple[int, str, Entry]], shape: tuple[int, int, int], pool: Executor, ahead: int
) -> Iterator[tuple[int, memoryview]]:
    """Row and image (C, S, S) of each picture, in their order; this thread reads ``ahead`` of what it gives."""
    waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
    for row, where, entry in pictures:
        if len(waiting) == ahead:
            first, image = waiting.popleft()
            yield first, image.result().data
        assert entry.read is not None  # folders are no pictures
        waiting.append((row, pool.submit(square, read_now(entry.read), where, shape)))
    for row, image in waiting:
        yield row, image.result().data


def read_now(read: Callable[[], bytes]) -> Callable[[], bytes]:
    """Read, and give or raise later what came of it: an earlier picture may still prove to be the first bad one."""
    content: Future[bytes] = Future()
    try:
        content.set_result(read())
    except DAMAGE as error:
        content.set_exception(error)
    return content.result


def write_batch(images: RowFile, batch: Iterable[tuple[int, memoryview]]) -> str:
    """Force a batch's images to the disk and return their checksum."""
    checksum = hashlib.sha256()

    def noted() -> Iterator[tuple[int, memoryview]]:
        for row, image in batch:
            checksum.update(image)
            yield row, image

    images.write(noted())
    return checksum.hexdigest()


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
