"""A flipped byte in a file of a finished study: is it found by the command that reads the file, or by the doctor?"""

import os
import random
from collections.abc import Sequence
from pathlib import Path

from chaos.commands import Place
from chaos.study import Job
from entpruner.errors import UserError
from entpruner.layout import CHECKSUMS
from entpruner.reporting.doctor import examine
from entpruner.rules import RULES
from entpruner.system.files import checksums_in


def somewhere(results: Path, random_: random.Random) -> tuple[Path, int]:
    """A file and a place in it: of all files with the same chance, or of all bytes, which most often are a store's."""
    sizes = {file: file.stat().st_size for file in sorted(results.rglob("*")) if file.is_file() and file.stat().st_size}
    weights = list(sizes.values()) if random_.random() < 0.5 else None
    [file] = random_.choices(list(sizes), weights)
    return file, random_.randrange(sizes[file])


def flip(file: Path, at: int, by: int) -> None:
    """Change a byte of a file, and nothing else that a system keeps of it. To flip it again restores it."""
    stat = file.stat()
    with file.open("rb+") as content:
        content.seek(at)
        [byte] = content.read(1)
        content.seek(at)
        content.write(bytes([byte ^ by]))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def found_by_doctor(results: Path, file: Path) -> bool:
    """Whether the doctor names the file, or its checksums; or any file of the folder, if these have changed."""
    named = [finding.path for finding in examine(results)]
    return any(path in (file, file.parent / CHECKSUMS) for path in named) or (
        file.name == CHECKSUMS and any(path.parent == file.parent for path in named)
    )


def harmless(results: Path, file: Path, before: dict[str, str]) -> str:
    """Why it does not matter that a file has changed, or nothing. ``before`` are its folder's checksums from before."""
    if file.is_relative_to(results / "logs"):
        return "no command reads a log"
    try:
        if file.name == CHECKSUMS and checksums_in(file.parent) | {CHECKSUMS: ""} == before | {CHECKSUMS: ""}:
            return "checksums that are spaced otherwise, or whose own checksum, of before, nobody compares"
    except UserError:
        pass
    return ""


def flip_somewhere(place: Place, jobs: Sequence[Job], random_: random.Random) -> tuple[str, str, str]:
    """One flipped byte: how it was found, where, and what is wrong (nothing: it was found, or is harmless)."""
    results = place.folder / place.results
    file, at = somewhere(results, random_)
    by, before = random_.randint(1, 255), checksums_in(file.parent)
    where = f"byte {at} of {file.relative_to(results)}"
    name = str(file.relative_to(place.folder))
    readers = [job for job in jobs if name in job.inputs and RULES[job.rule].warm]
    flip(file, at, by)
    try:
        if readers:
            job = random_.choice(readers)
            code, _ = place.run(job)
            heard = place.said.read_text()
            place.restore(job)
            named = str(file.parent.relative_to(place.folder)) in heard[heard.rstrip().rfind("\n") + 1 :]
            if code == 1 and named and "Traceback" not in heard:
                return "a flipped byte: refused by the command that reads it", f"{where}, {job.rule}", ""
            if code:
                return "a flipped byte", where, f"{job.rule} ended with {code}: {heard}"
        if found_by_doctor(results, file):
            return "a flipped byte: found by the doctor", where, ""
        why = harmless(results, file, before)
        return "a flipped byte" + f": harmless, {why}" * bool(why), where, "" if why else "nobody found it"
    finally:
        flip(file, at, by)
