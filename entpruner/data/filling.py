"""A store's images from encoded pictures: several threads decode them, and a killed preparation goes on.

    <out>.resume/<fingerprint>.npy    all images, of which some are written
    <out>.resume/<fingerprint>.jsonl  a journal: the batches that are written, and the checksum of each

Once all images are written, the file moves into the store ``out``.
"""

import fcntl
import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from entpruner.data.archives import DAMAGE, Entry
from entpruner.data.images import square
from entpruner.data.rows import RowFile
from entpruner.data.writing import Contents, finish_store
from entpruner.errors import Stopped, UserError
from entpruner.layout import IMAGES
from entpruner.system.files import kept_when_full, whole_folder
from entpruner.system.journal import Journal
from entpruner.system.provenance import code_digest
from entpruner.system.stopping import StopRequest

BATCH = 256  # pictures whose images are forced to the disk together: a kill loses one batch
AHEAD = 4  # pictures a thread that are read before they can be written
SAID = 10_000  # pictures between two lines of the log

log = logging.getLogger(__name__)


class Picture(NamedTuple):
    row: int
    """Its row in the store."""
    label: int
    entry: Entry


class Batch(NamedTuple):
    """Pictures whose images are written together."""

    listed: Callable[[], Sequence[Picture]]
    """Lists these pictures and others, in the order in which they are read fastest: a list of all could be large."""
    first: int
    """Place of the batch's first picture in that list."""
    name: str
    """Digest of the pictures' rows, paths and versions. When a picture changes, its batch is another one."""
    rows: np.ndarray  # (B,) int64
    labels: np.ndarray  # (B,) int64


def batches_of(listed: Callable[[], Sequence[Picture]]) -> list[Batch]:
    """All that ``listed`` lists. It is called again whenever the pictures of a batch are read."""
    pictures = listed()
    parts = {first: pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH)}
    return [
        Batch(
            listed,
            first,
            name=digest([[row, str(entry.path), entry.version()] for row, _, entry in part]),
            rows=np.array([picture.row for picture in part]),
            labels=np.array([picture.label for picture in part]),
        )
        for first, part in parts.items()
    ]


def write_pictures(
    out: Path, batches: Sequence[Batch], contents: Contents, threads: int, checksum: str | None = None
) -> None:
    """Write a store of the batches' pictures.

    The bytes depend neither on the number of threads, which decode while this one reads and writes, nor on kills: the
    same call goes on after the last batch that reached the disk. ``checksum`` is that of the source, if its settings in
    ``contents`` do not say it. Raises UserError if an image can't be read (of several, the one that is read first), if
    the disk is too small or runs full, or if another process is writing this store; Stopped on SIGTERM, after a batch.
    """
    count, shape = sum(contents.counts.values()), contents.shape
    fingerprint = digest([contents.source, checksum, dict(contents.counts), shape, code_digest(__name__)])
    folder = out.with_name(out.name + ".resume")
    with kept_when_full(folder), only_process(folder):
        journal = Journal(folder, fingerprint)
        images = RowFile(journal.file.with_suffix(".npy"), np.uint8, (count, *shape))
        try:
            images.create(f"the images of {out}")
            fill(images, journal, batches, shape, threads)
            labels = np.empty(count, dtype=np.int64)
            for batch in batches:
                labels[batch.rows] = batch.labels
            with whole_folder(out) as store:
                images.move(store / IMAGES)
                finish_store(store, labels, contents)
        except BaseException:
            if not journal.done:
                journal.discard()
            raise
        journal.discard()


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Raises UserError while another process is in this block with the same folder.

    A file system that can't lock lets both in. They write the same bytes, and the second fails when the first deletes
    the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{folder}: another process is writing this store; let it end, or end it") from None
        yield


def fill(
    images: RowFile, journal: Journal, batches: Sequence[Batch], shape: tuple[int, int, int], threads: int
) -> None:
    """Write the batches that the journal does not have, or whose images are not what it says: a crash may lose some."""
    for batch in batches:
        if batch.name in journal.done and journal.done[batch.name] != images.checksum(batch.rows):
            log.warning("%s: rows from %d on are not what was written there: once more", images.path, batch.rows[0])
            del journal.done[batch.name]
    missing = [batch for batch in batches if batch.name not in journal.done]
    count = sum(len(batch.rows) for batch in batches)
    done = count - sum(len(batch.rows) for batch in missing)
    with StopRequest() as stop, ThreadPoolExecutor(threads) as pool:
        pictures = (picture for batch in missing for picture in batch.listed()[batch.first : batch.first + BATCH])
        coming = decoded(pictures, shape, pool, AHEAD * threads)
        for batch in missing:
            if stop.made:
                raise Stopped(f"asked to stop, kept {done} of {count} images: run the same command again to go on")
            journal.record(batch.name, partial(images.write, islice(coming, len(batch.rows))))
            done += len(batch.rows)
            if done // SAID > (done - len(batch.rows)) // SAID:
                log.info("%d of %d images", done, count)


def decoded(
    pictures: Iterable[Picture], shape: tuple[int, int, int], pool: Executor, ahead: int
) -> Iterator[tuple[int, memoryview]]:
    """Row and image (C, S, S) of each picture, in their order; this thread reads ``ahead`` of what it gives."""
    waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
    for row, _, entry in pictures:
        if len(waiting) == ahead:
            first, image = waiting.popleft()
            yield first, image.result().data
        waiting.append((row, pool.submit(square, read_now(entry), entry.name, shape)))
    for row, image in waiting:
        yield row, image.result().data


def read_now(entry: Entry) -> Callable[[], bytes]:
    """Read a file now, but raise its error only later: an earlier picture may still prove to be the first bad one."""
    assert entry.read is not None, "folders are no pictures"
    content: Future[bytes] = Future()
    try:
        content.set_result(entry.read())
    except DAMAGE as error:
        content.set_exception(error)
    return content.result


def digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
