"""Download a file, and compare its checksum with the expected one."""

from pathlib import Path

from entpruner.data.download import download
from entpruner.params.base import Frozen


class Settings(Frozen):
    url: str
    sha256: str


def run(settings: Settings, *, out: Path) -> None:
    download(settings.url, settings.sha256, out)
