"""Files that others made: on this machine, or to be downloaded."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, model_validator

from entpruner.params.base import Frozen


class Origin(Frozen):
    """A file that others made, or in some places a folder: on this machine, or to be downloaded."""

    path: str | None = None
    """The path of the file, relative to the folder in which the workflow runs."""
    url: str | None = Field(None, pattern=r"^https?://[^/?#\s]+/([^?#\s]*/)?[\w.%+~-]*\w([?]\S*)?$")
    """The address to download the file from instead. The file is kept in data/downloads/. Needs sha256."""
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """Checksum that the file must have."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.url is None):
            raise ValueError("give path or url, only one of them")
        if self.url is not None and self.sha256 is None:
            raise ValueError("a url needs the sha256 of its file")
        return self

    @property
    def file(self) -> str:
        """The path of the file, also before it is downloaded. Another checksum gives another path."""
        if self.path is not None:
            return self.path
        assert self.url is not None and self.sha256 is not None
        name = PurePosixPath(urlsplit(self.url).path).name
        return f"data/downloads/{self.sha256[:12]}/{name}"


def origins(section: Any) -> Iterator[Origin]:
    """All files that others made, in a part of a study."""
    if isinstance(section, Origin):
        yield section
    if isinstance(section, BaseModel):
        section = {key: getattr(section, key) for key in type(section).model_fields}
    for value in section.values() if isinstance(section, dict) else ():
        yield from origins(value)
