"""Downloads from servers on loopback that cut, know no ranges, refuse, or serve other bytes."""

import hashlib
import logging
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import refused as in_one_line
from snakemake_runs import ROOT, planned, snakemake

from entpruner.data import download as module
from entpruner.data.download import download
from entpruner.errors import UserError
from entpruner.params.base import merge
from entpruner.params.datasets import ImageFolder
from entpruner.params.files import check
from entpruner.params.origins import Origin, origins

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """One file on loopback. What goes wrong is set by the test; ``ranges_asked`` says what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/files/data.tar?download=1"
        self.content = CONTENT
        self.cuts: list[int] = []  # bytes of the body that each of the next answers brings
        self.answers: list[int] = []  # status of each of the next answers, before any with a body
        self.knows_ranges = self.tells_length = True
        self.shift = 0  # how far its ranges begin behind what was asked for
        self.ranges_asked: list[str | None] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.ranges_asked.append(asked)
        if server.answers:
            self.send_error(server.answers.pop(0))
            return
        begin = 0
        if asked and server.knows_ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-")) + server.shift
            if begin >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Encoding", "gzip")  # as some servers say of a .tgz: it is not to be unpacked
        body = server.content[begin:]
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE", 0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(url: str, out: Path, *words: str, sha256: str = SHA256) -> None:
    with in_one_line("", *words):
        download(url, sha256, out)


def test_a_file_comes_whole_and_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "deep/data.tar"
    download(server.url, SHA256, out)
    assert out.read_bytes() == CONTENT and [path.name for path in out.parent.iterdir()] == ["data.tar"]
    download(server.url, SHA256, out)
    assert server.ranges_asked == [None]


@given(cuts=st.lists(st.integers(0, len(CONTENT)), max_size=4))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cut_connections_are_taken_up_where_they_ended(
    server: Server, tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    server.cuts, server.ranges_asked = list(cuts), []
    out = tmp_path_factory.mktemp("place") / "data.tar"
    download(server.url, SHA256, out)
    assert out.read_bytes() == CONTENT
    had, expected = 0, []
    for brought in [*cuts, len(CONTENT)]:
        expected.append(f"bytes={had}-" if had else None)
        had = min(had + brought, len(CONTENT))
        if had == len(CONTENT):
            break
    assert server.ranges_asked == expected


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_server_that_knows_no_ranges_begins_anew(server: Server, tmp_path: Path, tells_length: bool) -> None:
    (tmp_path / "data.tar.partial").write_bytes(CONTENT[:1000])
    server.knows_ranges, server.tells_length = False, tells_length
    download(server.url, SHA256, tmp_path / "data.tar")
    assert (tmp_path / "data.tar").read_bytes() == CONTENT and server.ranges_asked == ["bytes=1000-"]


def test_a_cut_is_said_where_progress_is(server: Server, tmp_path: Path, caplog: Any) -> None:
    server.cuts = [1000]
    with caplog.at_level("INFO"):
        download(server.url, SHA256, tmp_path / "data.tar")
    reason = f"IncompleteRead(1000 bytes read, {len(CONTENT) - 1000} more expected)"
    assert caplog.messages == [f"data.tar: cut off ({reason}); going on from 0.0 MB"]


def test_a_server_that_cuts_again_and_again_keeps_what_came(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "data.tar"
    server.cuts = [4000, *[0] * module.ATTEMPTS]
    refused(server.url, out, server.url, "cut off", "run the same command again")
    assert not out.exists() and (tmp_path / "data.tar.partial").read_bytes() == CONTENT[:4000]
    assert len(server.ranges_asked) == 1 + module.ATTEMPTS
    server.ranges_asked.clear()
    download(server.url, SHA256, out)
    assert out.read_bytes() == CONTENT and server.ranges_asked == ["bytes=4000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.tar"]


@pytest.mark.parametrize("begun", [CONTENT, CONTENT + b"more", b"of another version"])
def test_a_partial_file_that_does_not_go_with_the_server_s(server: Server, tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "data.tar.partial").write_bytes(begun)
    download(server.url, SHA256, tmp_path / "data.tar")
    assert (tmp_path / "data.tar").read_bytes() == CONTENT


def test_another_range_than_was_asked_for_is_not_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.tar.partial").write_bytes(CONTENT[:1000])
    server.shift = 7
    download(server.url, SHA256, tmp_path / "data.tar")
    assert (tmp_path / "data.tar").read_bytes() == CONTENT and server.ranges_asked == ["bytes=1000-", None]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 429]
    download(server.url, SHA256, tmp_path / "data.tar")
    assert (tmp_path / "data.tar").read_bytes() == CONTENT


# --------------------------------------------------------------------------------------------------------- bad input


def test_other_bytes_than_were_promised(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    found = hashlib.sha256(server.content).hexdigest()
    refused(server.url, tmp_path / "data.tar", server.url, found, SHA256)
    assert not list(tmp_path.iterdir()) and len(server.ranges_asked) == 1
    (tmp_path / "data.tar.partial").write_bytes(CONTENT[:1000])
    refused(server.url, tmp_path / "data.tar", server.url, found, SHA256)
    assert not list(tmp_path.iterdir())


def test_another_file_of_that_name_is_left_alone(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "data.tar"
    out.write_bytes(b"mine")
    refused(server.url, out, str(out), hashlib.sha256(b"mine").hexdigest(), SHA256, "delete it")
    assert out.read_bytes() == b"mine" and not server.ranges_asked


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_server_that_refuses_is_asked_once(server: Server, tmp_path: Path, status: int) -> None:
    server.answers = [status]
    refused(server.url, tmp_path / "data.tar", server.url, str(status), "give path")
    assert not list(tmp_path.iterdir()) and len(server.ranges_asked) == 1


def test_a_server_that_is_not_there(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    refused(server.url, tmp_path / "data.tar", server.url, "no connection ([Errno 111] Connection refused)")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_before_anything_comes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=len(CONTENT) - 1))
    refused(server.url, tmp_path / "data.tar", server.url, str(tmp_path), "make room")
    (tmp_path / "data.tar.partial").write_bytes(CONTENT[:1000])
    download(server.url, SHA256, tmp_path / "data.tar")  # the rest fits


def test_progress(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(module, "REPORT", 0)
    monkeypatch.setattr(module, "CHUNK", len(CONTENT) // 2)
    server.content = CONTENT * 1000
    with caplog.at_level(logging.INFO, logger=module.__name__):
        download(server.url, hashlib.sha256(server.content).hexdigest(), tmp_path / "data.tar")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 2000
    assert all(re.fullmatch(r"data\.tar: [\d.]+[kM]? of 10.2M, [\d.]+[kM]B/s, \d\d:\d\d left", line) for line in lines)
    assert lines[-1].startswith("data.tar: 10.2M of 10.2M") and lines[-1].endswith("00:00 left")


# ------------------------------------------------------------------------------------------- in params and the workflow


def test_a_file_is_here_or_downloaded_to_a_place_of_its_own() -> None:
    assert Origin(path="data/x.tar").file == "data/x.tar"
    url = "https://example.org/files/x.tar?download=1"
    assert Origin(url=url, sha256=SHA256).file == f"data/downloads/{SHA256[:12]}/x.tar"
    both = {"a": Origin(path="x"), "b": ImageFolder(source="image_folder", path="y", image_size=8)}
    assert [origin.file for origin in origins(both)] == ["x", "y"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "give path or url, only one of them"),
        ({"path": "x", "url": "https://example.org/x", "sha256": SHA256}, "give path or url, only one of them"),
        ({"url": "https://example.org/x"}, "a url needs the sha256 of its file"),
        ({"url": "ftp://example.org/x", "sha256": SHA256}, "text of the form"),
        ({"url": "file:///etc/passwd", "sha256": SHA256}, "text of the form"),
        ({"url": "https://example.org/x/", "sha256": SHA256}, "text of the form"),
        ({"url": "https://example.org/x/..", "sha256": SHA256}, "text of the form"),
        ({"url": "https://example.org/x", "sha256": SHA256[:-1]}, "text of the form"),
    ],
)
def test_what_is_neither_here_nor_to_be_had(given: dict[str, str], words: str) -> None:
    birds = {"source": "image_folder", "image_size": 8, **given}
    study = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    with pytest.raises(UserError) as caught:
        check(merge(study, {"datasets": {"birds": birds}}))
    [line] = str(caught.value).splitlines()
    assert line.startswith("datasets.birds") and words in line


def test_the_workflow_downloads_once_and_goes_on_after_a_cut(server: Server, tmp_path: Path) -> None:
    study = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    files = {"images": "102flowers.tgz", "labels": "imagelabels.mat", "splits": "setid.mat"}
    study["datasets"] = {
        "upstream": {"source": "image_folder", "image_size": 8, "url": server.url, "sha256": SHA256},
        "downstream": {"source": "flowers", "image_size": 8}
        | {part: {"url": f"https://example.org/{name}", "sha256": SHA256} for part, name in files.items()},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    target = f"data/downloads/{SHA256[:12]}/data.tar"
    given = [target, "--configfile", str(tmp_path / "study.yaml")]
    stores = [f"results/smoke/data/{name}/manifest.json" for name in ("upstream", "downstream")]
    assert planned(snakemake(tmp_path, "--dry-run", *stores, *given[1:])) == {"download": 4, "data": 2}
    server.content = b"other bytes"
    snakemake(tmp_path, *given, succeeds=False)
    [line] = (tmp_path / f"results/smoke/logs/{target}.log").read_text().splitlines()
    assert line.startswith(f"entpruner: {server.url}: what it serves has sha256")
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / f"{target}.partial").write_bytes(CONTENT[:1000])  # as after a cut
    server.content = CONTENT
    snakemake(tmp_path, *given)
    assert (tmp_path / target).read_bytes() == CONTENT and server.ranges_asked == [None, "bytes=1000-"]
    study["datasets"]["upstream"]["url"] = server.url.replace("/files/", "/mirror/")  # the same file, by its checksum
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    assert planned(snakemake(tmp_path, "--dry-run", *given)) == {}
