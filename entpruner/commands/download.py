"""Download a file, and hold it against its checksum."""

from pathlib import Path

from entpruner.data.download import download
from entpruner.rules.data import DownloadSettings


def run(settings: DownloadSettings, *, out: Path) -> None:
    download(settings.url, settings.sha256, out)
