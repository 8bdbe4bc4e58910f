"""Download a file, and compare its checksum with the expected one."""

from pathlib import Path

from entpruner.data.download import download
from entpruner.rules.data import DownloadSettings


def run(settings: DownloadSettings, *, out: Path) -> None:
    download(settings.url, settings.sha256, out)
