"""The JSON documents of a study, which are files of their own or lines of one published bundle."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import BUNDLE, CHECKSUMS, TIMING, WITHIN
from entpruner.system.files import read_json

MADE_FIRST = (
    WITHIN.pixels("*"),
    WITHIN.classifier("*"),
    WITHIN.pretrained("*", "*"),
    WITHIN.adapted("*", "*", "*"),
    WITHIN.scores("*", "*", "*", "*"),
    WITHIN.stage("*", "*"),
    WITHIN.final("*"),
)
TRAINED = tuple(made.path.as_posix() for made in MADE_FIRST)
"""Patterns of the folders with data, networks and scores. Everything else of a study can be measured from these."""


class Records:
    """The JSON documents of a study, by their paths within its folder.

    In results/<study> each document is a file. In results/published/<study> most documents are lines of a bundle, each
    with its path and its content. A few are files, such as the provenance of the tables.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bundle = folder / BUNDLE
        lines = map(json.loads, bundle.read_text().splitlines()) if bundle.exists() else ()
        self.bundled: dict[str, Any] = {line["file"]: line["record"] for line in lines}

    def __contains__(self, path: str | Path) -> bool:
        return str(path) in self.bundled or (self.folder / path).exists()

    def __getitem__(self, path: str | Path) -> Any:
        """The content of a document. Raises UserError if it does not exist."""
        if path not in self:
            raise UserError(f"{self.folder}: there is no {path}; make it, or publish the study again")
        return self.bundled[str(path)] if str(path) in self.bundled else read_json(self.folder / path)

    def __iter__(self) -> Iterator[str]:
        """The sorted paths of all documents in the folders of the study, without logs and half-written files."""
        files = (file for file in files_of(self.folder) if len(file.parts) > 1 and file.suffix == ".json")
        return iter(sorted({*self.bundled, *(file.as_posix() for file in files)}))

    def matching(self, *patterns: str | Path) -> dict[str, Any]:
        """The documents whose paths match one of the patterns of ``fnmatch``, sorted by path."""
        return {path: self[path] for path in self if any(fnmatchcase(path, str(pattern)) for pattern in patterns)}

    def timings(self) -> dict[str, Mapping[str, Any]]:
        """The record of time of every command, by the path of its document.

        Such a record is a document of its own, except for costs and for the audit, whose documents contain it.
        """
        holding = self.matching(WITHIN.cost("*", "*").path, WITHIN.audit("*", "*").path)
        return self.matching(f"*{TIMING}") | {path: content["timing"] for path, content in holding.items()}


def is_trained(path: str) -> bool:
    """Whether a path within a study lies in a folder with data, networks or scores."""
    return any(fnmatchcase(path, f"{pattern}/*") for pattern in TRAINED)


def files_of(study: Path) -> Iterator[Path]:
    """The paths within a study of all files that its rules made, without logs, checksums and half-written files."""
    for file in study.rglob("*"):
        path = file.relative_to(study)
        unfinished = any(part.endswith(".partial") for part in path.parts)
        if file.is_file() and path.parts[0] != "logs" and path.name != CHECKSUMS and not unfinished:
            yield path
