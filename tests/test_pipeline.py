"""One whole run of a small study, and what can be done with it: follow its numbers, break it off, show it, move it."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
import yaml
from chaos.commands import WAYS, Place, end_early
from chaos.flips import flip_somewhere
from chaos.study import LISTED, Job, jobs_in
from chaos.trees import DAY, jump
from snakemake_runs import (
    ROOT,
    checkpoint_after,
    command,
    commands,
    environment,
    gone,
    heed_ctrl_c,
    planned,
    snakemake,
    wait_for,
)

pytestmark = pytest.mark.slow

FULL, PRUNED = "full-sit-downstream-s0", "entpruner-sit-downstream-r50-s0"


def tiny_study() -> dict[str, Any]:
    """The smoke study with one backbone, whose training is long enough to be broken off."""
    study = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    study["study"] = "tiny"
    del study["backbones"]["dit"], study["arms"]["ld_pruner"]
    study["arms"]["full"]["backbone"] = study["arms"]["entpruner"]["backbone"] = "sit"
    study["tables"]["table1"]["arms"] = ["full", "entpruner"]
    for name, figure in study["figures"].items():
        figure |= {"backbones": ["sit"]} if "backbones" in figure else {"arms": ["full", "entpruner"]}
        if name == "monitor":
            figure["arms"] = ["entpruner"]
    study["pretrain"] |= {"steps": 300, "checkpoint_every": 10}  # to be broken off several times
    study["evaluation"]["classifier"]["steps"] = 10
    return study


class Run:
    """A finished run, made with a cache between workflows for data and backbone."""

    def __init__(self, folder: Path) -> None:
        self.study, self.folder, self.cache = folder / "tiny.yaml", folder / "run", folder / "cache"
        self.results = self.folder / "results/tiny"
        self.study.write_text(yaml.safe_dump(tiny_study(), sort_keys=False))
        for made in (self.folder, self.cache):
            made.mkdir()
        with TemporaryDirectory() as temporary:  # pytest's own folders have paths too long for a socket
            self.snakemake(self.folder, "--cache", "data", "pretrain", warm=True, TMPDIR=temporary)

    def snakemake(self, folder: Path, *arguments: str, **more: Any) -> str:
        given = [*arguments, "--configfile", str(self.study)]
        return snakemake(folder, *given, SNAKEMAKE_OUTPUT_CACHE=str(self.cache), **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("pipeline"))


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_run_makes_everything_and_then_has_nothing_to_do(finished: Run) -> None:
    results = finished.results
    for name in (
        *(f"tables/table1.{suffix}" for suffix in ("csv", "md", "html", "tex", "provenance.json")),
        *(f"figures/{figure}.{suffix}" for figure in tiny_study()["figures"] for suffix in ("png", "svg")),
        *(f"arms/{PRUNED}/{stage}/decision.json" for stage in ("stage1", "stage2")),
        *(f"arms/{arm}/samples/grid.png" for arm in (FULL, PRUNED)),
    ):
        assert (results / name).stat().st_size > 0, name
    assert len(read(results / f"arms/{PRUNED}/final/model.json")["kept_blocks"]) == 2
    runs = {f"tiny/{name}" for name in ("table1", "recovery", FULL, PRUNED)}
    assert set(read(results / "tracking.json")["runs"]) == runs
    assert not list(results.rglob("*.partial")) and not list(results.rglob("*.resume"))
    assert planned(finished.snakemake(finished.folder, "--dry-run")) == {}


def test_the_table_holds_the_measured_numbers(finished: Run) -> None:
    with (finished.results / "tables/table1.csv").open() as file:
        found = list(csv.DictReader(file))
    made = [row["command"] for row in read(finished.results / "tables/table1.provenance.json")["rows"]]
    rows = {Path(command.split()[-1]).parent.name: row for command, row in zip(made, found, strict=True)}
    assert rows.keys() == {FULL, PRUNED}
    columns = {"distance": "fd_classifier", "over_floor": "fd_classifier_ratio", "kid": "kid_classifier"}
    columns |= {"precision": "precision_classifier", "recall": "recall_classifier", "agreement": "agreement"}
    for arm, row in rows.items():
        metrics = read(finished.results / f"arms/{arm}/metrics.json")
        assert {column: float(row[column]) for column in columns} == {
            column: metrics[key] for column, key in columns.items()
        }


def test_before_recovery_is_measured_on_the_network_that_the_last_cut_left(finished: Run) -> None:
    arm = finished.results / f"arms/{PRUNED}"
    with (finished.results / "tables/recovery.csv").open() as file:
        unpruned, pruned = csv.DictReader(file)
    assert float(pruned["distance_before"]) == read(arm / "cut-metrics.json")["fd_classifier"]
    assert float(pruned["distance"]) == read(arm / "metrics.json")["fd_classifier"]
    assert unpruned["distance_before"] == ""
    assert read(arm / "cut/model.json") == read(arm / "final/model.json")
    assert (arm / "cut/model.safetensors").read_bytes() != (arm / "final/model.safetensors").read_bytes()
    assert {int(row["steps"]) for row in (unpruned, pruned)} == {20 + 16}  # adapt's and finetune's


def test_a_backbone_comes_from_the_cache_in_another_folder(finished: Run, tmp_path: Path) -> None:
    backbone = "results/tiny/pretrain/sit-s0"
    finished.snakemake(tmp_path, f"{backbone}/model.safetensors", "--cache", "data", "pretrain")
    assert (tmp_path / backbone / "model.safetensors").resolve().is_relative_to(finished.cache)
    assert read(tmp_path / backbone / "timing.json") == read(finished.folder / backbone / "timing.json")


@pytest.mark.parametrize(("way", "broken_by"), [("by itself", signal.SIGINT), ("from a warm process", signal.SIGHUP)])
def test_a_run_broken_off_ends_with_the_same_bits(
    finished: Run, tmp_path: Path, way: str, broken_by: signal.Signals
) -> None:
    """By Ctrl-C or a closed terminal; then Snakemake alone is killed; then its job is asked to stop, and killed."""
    folder = shutil.copytree(finished.folder, tmp_path / "run")  # with what Snakemake knows of it
    backbone = folder / "results/tiny/pretrain/sit-s0"
    undisturbed = {file.name: file.read_bytes() for file in backbone.glob("*.safetensors")}
    shutil.rmtree(backbone)
    target = str(backbone.relative_to(folder) / "model.safetensors")
    warm = way == "from a warm process"
    start = command(folder, target, "--configfile", str(finished.study), warm=warm)
    with TemporaryDirectory() as temporary:  # pytest's own folders have paths too long for a socket
        here = {"env": environment(TMPDIR=temporary), "preexec_fn": heed_ctrl_c}
        here |= {"start_new_session": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(start, **here) as run:
            step = checkpoint_after(0, backbone, run)
            everything = psutil.Process(run.pid).children(recursive=True)
            assert bool(commands(run, "warm")) == warm
            os.killpg(run.pid, broken_by)
        assert run.returncode != 0
        assert not backbone.exists() and not list((folder / ".snakemake/locks").glob("*"))

        with subprocess.Popen(start, **here) as run:
            step = checkpoint_after(step, backbone, run)
            [job] = commands(run, "pretrain")
            everything += psutil.Process(run.pid).children(recursive=True)
            run.kill()
        assert list((folder / ".snakemake/locks").glob("*"))
        wait_for(lambda: gone(job.pid))  # or the next run would meet it

        with subprocess.Popen(start, **here) as run:
            step = checkpoint_after(step, backbone, run)
            [job] = commands(run, "pretrain")
            job.terminate()  # it saves itself first
            checkpoint_after(step + 10, backbone, run)
            [job] = commands(run, "pretrain")
            everything += psutil.Process(run.pid).children(recursive=True)
            job.kill()
        assert run.returncode == 0  # both retries went on where the job had been
        wait_for(lambda: all(gone(process.pid) for process in everything))
        left = ["entpruner-*", "snakemake*"] if warm else ["entpruner-*"]  # Snakemake by itself leaves its folder
        assert not [path for pattern in left for path in Path(temporary).glob(pattern)]
    assert "going on from" in (folder / "results/tiny/logs/pretrain/sit-s0.log").read_text()
    assert {file.name: file.read_bytes() for file in backbone.glob("*.safetensors")} == undisturbed


def test_a_clock_that_was_set_back_costs_nothing(finished: Run, tmp_path: Path) -> None:
    """Snakemake fails a job whose inputs are of a later time than what it has just made, and deletes that."""
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    jump(folder, DAY)
    table = folder / "results/tiny/tables/table1.md"
    written = table.read_bytes()
    table.unlink()
    finished.snakemake(folder, str(table.relative_to(folder)))
    assert table.read_bytes() == written


def test_the_report_shows_tables_and_figures_in_chapters(finished: Run, tmp_path: Path) -> None:
    finished.snakemake(finished.folder, "--report", str(tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    for name in tiny_study()["tables"]:
        assert f'"results/tiny/tables/{name}.html"' in page  # a page: it shows no CSV
    for name in tiny_study()["figures"]:
        assert f'"results/tiny/figures/{name}.png"' in page
    assert '"At a glance": {"Other": ["results/tiny/index.html"' in page  # the menu's first entry: it sorts them
    assert '"Tables": {"Other": ["results/tiny/tables/' in page and '"Figures": {"Other": ["results/tiny/fig' in page
    for shown in (*tiny_study()["tables"].values(), *tiny_study()["figures"].values()):
        assert shown["caption"].split(". ")[-1] in page


def test_results_brought_from_elsewhere_need_only_a_touch(finished: Run, tmp_path: Path) -> None:
    """As `make restore` does; MLflow's view is not saved but rebuilt."""
    unsaved = shutil.ignore_patterns("tracking.json", "logs", "mlflow*", "mlartifacts")
    shutil.copytree(finished.folder / "results", tmp_path / "results", ignore=unsaved)
    finished.snakemake(tmp_path, "--touch", "--forceall")
    output = finished.snakemake(tmp_path, "--dry-run")
    assert planned(output) == {"track": 1}
    assert "missing provenance" not in output


# ------------------------------------------------------------------------------------------ make chaos, its short form


@pytest.fixture(scope="module")
def place(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(finished.folder, Path("results/tiny"), tmp_path_factory.mktemp("chaos"))


@pytest.fixture(scope="module")
def short_jobs(finished: Run) -> list[Job]:
    """The jobs of the finished run that take little time."""
    short = {"score", "prune", "cut", "recover", "sample", "table"}
    return [job for job in jobs_in(finished.snakemake(finished.folder, LISTED)) if job.rule in short]


@pytest.mark.parametrize("way", WAYS)
def test_a_command_that_ends_at_a_file_system_event_loses_nothing(
    place: Place, short_jobs: list[Job], way: str
) -> None:
    _, where, wrong = end_early(place, short_jobs, {}, random.Random(way), way)
    assert not wrong, where


def test_a_flipped_byte_is_found(place: Place) -> None:
    for number in range(20):
        _, where, wrong = flip_somewhere(place, [], random.Random(number))
        assert not wrong, where
