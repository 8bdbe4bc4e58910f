"""Versions: a finished run is saved, lost, and brought back; published numbers can be compared between commits."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_study import ROW, record, write_table

from entpruner.reporting.publish import publish
from entpruner.system.files import write_json

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
ENVIRONMENT = {  # and nothing else: neither the reader's git settings nor those of a make around this test
    "PATH": os.environ["PATH"],
    "PYTHONPATH": str(ROOT),
}
HOUSE = [
    ".dvc/config",
    ".dvc/plots/arms.json",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
    "dvc.yaml",
    "Makefile",
    "results/.gitignore",
]


def run(clone: Path, *command: str) -> str:
    finished = subprocess.run(command, cwd=clone, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def make(clone: Path, *arguments: str) -> str:
    """make, in the environment of this test, without the workflow behind it."""
    return run(clone, "make", "--assume-old=.venv/ready", f"BIN={BIN}", "SNAKEMAKE=true", *arguments)


def git(clone: Path, *arguments: str) -> str:
    return run(clone, "git", "-c", "user.name=reader", "-c", "user.email=reader@example.org", *arguments)


def finish_run(results: Path, distance: float) -> None:
    """What the workflow leaves of three arms, in small; the last is in a table."""
    for arm in ("full-dit-s0", "entpruner-dit-r50-s0", f"{'-'.join(ROW)}-s0"):
        write_json(results / f"arms/{arm}/metrics.json", {"fd_classifier": distance, "macs": 1000})
        for stage, step in (("stage1", 1), ("final", 2)):
            curve = results / f"arms/{arm}/{stage}/curve.jsonl"
            curve.parent.mkdir(exist_ok=True)
            curve.write_text(json.dumps({"step": step, "loss": distance / step, "lr": 0.1}) + "\n")
        (results / f"arms/{arm}/final/model.safetensors").write_bytes(arm.encode() * 1000)
        write_json(results / f"arms/{arm}/final/timing.json", record(settings={"stage": 2}))
    write_table(results, "table1", {ROW: {"distance": distance}})
    write_json(results / "audit/masks/dit-s0.json", {"masks": [], "timing": record()})
    for table in ("table1.csv", "table1.md"):
        (results / "tables" / table).write_text(f"{distance}\n")


def content(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A commit of this house in small, with one finished run that git doesn't see."""
    clone = tmp_path / "clone"
    for name in HOUSE:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, clone / name)
    (clone / "params").mkdir()
    (clone / "params/digits.yaml").write_text("finetune: {steps: 100}\n")
    git(clone, "init", "--quiet")
    finish_run(clone / "results/digits", 2.0)
    return clone


@pytest.mark.slow
def test_a_saved_run_comes_back_in_another_clone(clone: Path, tmp_path: Path) -> None:
    finished = content(clone / "results/digits")
    run(clone, str(BIN / "dvc"), "remote", "add", "--default", "store", str(tmp_path / "store"))
    make(clone, "save")
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message", "Run")
    tracked = git(clone, "ls-files", "results").split()
    assert {"results/digits/arms.dvc", "results/digits/audit.dvc"} <= set(tracked)
    assert not any("digits/arms/" in file for file in tracked)

    other = tmp_path / "other"
    git(tmp_path, "clone", "--quiet", str(clone), str(other))
    make(other, "restore")
    restored = content(other / "results/digits")
    assert {file: restored.get(file) for file in finished} == finished


@pytest.mark.slow
def test_without_a_remote_a_run_is_kept_in_the_clone(clone: Path) -> None:
    finished = content(clone / "results/digits")
    make(clone, "save")
    finish_run(clone / "results/digits", 1.0)
    shutil.rmtree(clone / "results/digits/tables")
    shutil.rmtree(clone / "results/digits/arms")
    make(clone, "restore")
    restored = content(clone / "results/digits")
    assert {file: restored.get(file) for file in finished} == finished


@pytest.mark.slow
def test_dvc_compares_published_runs(clone: Path) -> None:
    dvc = str(BIN / "dvc")
    make(clone, "publish")
    expected = yaml.safe_load((clone / "params/expected/digits.yaml").read_text())
    assert expected["tables"]["table1"][0]["cells"]["distance"]["value"] == 2.0
    git(clone, "add", ".")
    git(clone, "commit", "--quiet", "--message", "First run")
    (clone / "params/digits.yaml").write_text("finetune: {steps: 200}\n")
    finish_run(clone / "results/digits", 1.5)
    publish(clone / "results/digits", clone / "results/published/digits")

    file = "results/published/digits/metrics.json"
    shown = json.loads(run(clone, dvc, "metrics", "show", "--json"))
    assert shown[""]["data"][file]["data"]["full-dit-s0"] == {"fd_classifier": 1.5, "macs": 1000}
    changed = json.loads(run(clone, dvc, "metrics", "diff", "--json"))
    assert changed[file]["full-dit-s0.fd_classifier"] == {"old": 2.0, "new": 1.5, "diff": -0.5}
    params = json.loads(run(clone, dvc, "params", "diff", "--json"))
    assert params["params/digits.yaml"]["finetune.steps"] == {"old": 100, "new": 200, "diff": 100}
    run(clone, dvc, "plots", "diff", "--out", "page")
    page = (clone / "page/index.html").read_text()
    assert '"facet": {"field": "arm"' in page
    for rev, loss in (("HEAD", "1.0"), ("workspace", "0.75")):
        assert f'{{"arm": "full-dit-s0", "step": "2", "loss": "{loss}", "rev": "{rev}"' in page


def test_save_and_restore_say_what_is_missing(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "Makefile", tmp_path / "Makefile")
    for command in ("save", "restore"):
        make_it = ["make", "--assume-old=.venv/ready", command]
        refused = subprocess.run(make_it, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert refused.returncode != 0
        assert refused.stdout.startswith("results/digits: ") and refused.stdout.count("\n") == 1
