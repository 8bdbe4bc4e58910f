"""The JSON documents of a study, wherever they lie: each in a file of its own, or together in one published bundle."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import BUNDLE, TIMING, WITHIN
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
"""Patterns of the folders that measuring begins from; everything else in a study can be measured again."""


class Records:
    """The JSON documents of a study, by their paths within its folder.

    In results/<study> each document is a file. In results/published/<study> most of them are lines of a bundle, which
    hold path and content, and a few, such as the provenance of the tables, are files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bundle = folder / BUNDLE
        lines = map(json.loads, bundle.read_text().splitlines()) if bundle.exists() else ()
        self.bundled: dict[str, Any] = {line["file"]: line["record"] for line in lines}

    def __contains__(self, path: str | Path) -> bool:
        return str(path) in self.bundled or (self.folder / path).exists()

    def __getitem__(self, path: str | Path) -> Any:
        """Raises UserError where there is no such document."""
        if path not in self:
            raise UserError(f"{self.folder}: there is no {path}; make it, or publish the study again")
        return self.bundled[str(path)] if str(path) in self.bundled else read_json(self.folder / path)

    def __iter__(self) -> Iterator[str]:
        """The sorted paths of all documents that lie in the study's chapters; logs and half-written files are none."""
        files = (file for file in files_of(self.folder) if len(file.parts) > 1 and file.suffix == ".json")
        return iter(sorted({*self.bundled, *(file.as_posix() for file in files)}))

    def matching(self, *patterns: str | Path) -> dict[str, Any]:
        """The documents whose paths match one of the patterns, sorted by path."""
        return {path: self[path] for path in self if any(fnmatchcase(path, str(pattern)) for pattern in patterns)}

    def timings(self) -> dict[str, Mapping[str, Any]]:
        """Every record of time, by the path of its document: some documents are one, others hold one."""
        holding = self.matching(WITHIN.cost("*", "*").path, WITHIN.audit("*", "*").path)
        return self.matching(f"*{TIMING}") | {path: content["timing"] for path, content in holding.items()}


def is_trained(path: str) -> bool:
    """Whether a path within a study belongs to what measuring begins from."""
    return any(fnmatchcase(path, f"{pattern}/*") for pattern in TRAINED)


def files_of(study: Path) -> Iterator[Path]:
    """The paths within a study of all files that its rules made; logs and half-written files are left out."""
    for file in study.rglob("*"):
        path = file.relative_to(study)
        if file.is_file() and path.parts[0] != "logs" and not any(part.endswith(".partial") for part in path.parts):
            yield path
