"""``entpruner doctor``: what is wrong with a folder of results, and what is left of runs that were killed."""

import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from entpruner.data.latent_store import open_store
from entpruner.errors import UserError
from entpruner.layout import CHECKSUMS, IMAGES, MANIFEST, MOMENTS, TIMING, WITHIN
from entpruner.reporting.records import files_of
from entpruner.system.files import LARGE, ONE_BY_ONE, checksum_of, checksums_in, read_json
from entpruner.system.runs import left_locked
from entpruner.system.temporary import abandoned

PARTIAL, RESUME = ".partial", ".resume"
SHA256 = re.compile("[0-9a-f]{64}")
"""What checksums say of themselves where a command made a store first, and then a whole folder of it."""


class Finding(NamedTuple):
    """Something that is wrong, and what to do about it."""

    path: Path
    says: str
    mend: Callable[[], None] | None = None
    """Deletes what the next run makes again, or what nobody needs; None where a person must decide."""


def examine(study: Path) -> Iterator[Finding]:
    """What is wrong with the results of a study, of which nothing should be running. Raises UserError without any."""
    if not study.is_dir():
        raise UserError(f"{study}: no folder of results; give one, such as results/digits")
    yield from leftovers(study)
    for folder in sorted({study, *(path for path in study.rglob("*") if path.is_dir())}):
        if not any(part.endswith((PARTIAL, RESUME)) for part in folder.relative_to(study).parts):
            yield from damage(folder)
    yield from other_versions(study)


def leftovers(study: Path) -> Iterator[Finding]:
    """What killed runs left: in the study, in this working folder, and among temporary files."""
    for path in sorted(study.rglob("*")):
        if path.name.endswith(PARTIAL):
            yield Finding(path, "half-written, by a command that was killed", partial(delete, path))
        elif path.name.endswith(RESUME) and path.with_suffix("").exists():
            yield Finding(path, f"checkpoints of {path.with_suffix('').name}, which is finished", partial(delete, path))
    for lock in left_locked():
        yield Finding(lock, "a lock of a run that was killed", partial(delete, lock))
    for folder in abandoned():
        yield Finding(folder, "a temporary folder of a process that was killed", partial(delete, folder))


def damage(folder: Path) -> Iterator[Finding]:
    """Files of a folder that are not what was written, missing, or not from here."""
    anew = partial(delete_files, folder)
    try:
        expected = checksums_in(folder)
        says = expected.pop(CHECKSUMS, None)
    except UserError:
        expected, says = {}, "damaged"
    if says not in (None, ONE_BY_ONE) and not SHA256.fullmatch(str(says)):
        yield Finding(folder / CHECKSUMS, "damaged", anew)
        return
    one_by_one = says == ONE_BY_ONE
    found = {file.name for file in folder.iterdir() if file.is_file()} - {CHECKSUMS}
    for name in sorted(expected):
        if name in found and checksum_of(folder / name) != expected[name]:
            mend = partial(delete, folder / name) if one_by_one else anew
            yield Finding(folder / name, "has changed since it was written", mend)
        elif name not in found and not one_by_one:
            yield Finding(folder / name, "missing", anew)
    for name in sorted(found - expected.keys()):
        if expected and not one_by_one:
            yield Finding(folder / name, "not from here: no command wrote it")
        elif name.endswith(".json"):
            try:
                read_json(folder / name)
            except ValueError as error:
                yield Finding(folder / name, f"not JSON ({error})", partial(delete, folder / name))
    large = [folder / name for name in (IMAGES, MOMENTS) if name in found and (folder / name).stat().st_size > LARGE]
    if large and MANIFEST in found:
        try:
            open_store(folder, verify=True)
        except UserError as error:
            yield Finding(large[0], str(error).removeprefix(f"{large[0]}: "), anew)


def other_versions(study: Path) -> Iterator[Finding]:
    """Results of another Python or torch than the one here, which may round differently."""
    import torch  # seconds, which the rest does without

    here = {"python": platform.python_version(), "torch": torch.__version__}
    made: dict[tuple[str, str], int] = {}
    for path in files_of(study):
        if path.name.endswith(TIMING) or path.parent == WITHIN.cost("*", "*").path.parent:
            try:
                record = read_json(study / path)
                timing = record.get("timing", record)
                others = {(key, timing[key]) for key in here if timing[key] != here[key]}
            except (UserError, ValueError, KeyError, AttributeError):
                continue  # said above, or no record of a command
            for other in others:
                made[other] = made.get(other, 0) + 1
    for (key, version), count in sorted(made.items()):
        says = f"{count} commands ran with {key} {version}, here is {here[key]}: a rerun may round otherwise"
        yield Finding(study, says)


def delete_files(folder: Path) -> None:
    """Delete a folder that a command made, or the files of one in which other commands have made folders."""
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
