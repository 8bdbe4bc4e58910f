"""Published runs: laid out as runs are, small, and enough to build every table again to the last byte."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_study import PARAMS, finish_smoke, record

from entpruner.cli import main
from entpruner.errors import UserError
from entpruner.params.files import read_study
from entpruner.reporting.machine import describe, is_trained
from entpruner.reporting.publish import publish
from entpruner.reporting.rebuild import build, stage, tables_at
from entpruner.reporting.verdicts import same_files
from entpruner.system.files import write_json
from entpruner.system.recording import processor_name

PUBLISHED = PARAMS.parent / "results/published"


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """One arm with what is small and what isn't, and what other chapters leave."""
    folder = tmp_path / "results/digits"
    arm = folder / "arms/full-s0"
    small = [
        "metrics.json", "metrics.timing.json", "cut-metrics.json", "samples/timing.json", "cut-samples/timing.json",
        "cut/model.json", "final/model.json", "final/timing.json", "stage1/decision.json",
    ]  # fmt: skip
    for name in small:
        write_json(arm / name, record())
    for stage_name, step in (("stage1", 1), ("final", 2)):
        write_json(arm / stage_name / "timing.json", record(settings={"stage": step}))  # the recovery is the second
        (arm / stage_name / "curve.jsonl").write_text(json.dumps({"step": step, "loss": 2.0 / step, "lr": 0.1}) + "\n")
    for name in ("final/model.safetensors", "samples/images.npy", "samples/grid.png"):
        (arm / name).write_bytes(b"x" * 1000)
    for name in ("adapt/dit-s0/timing.json", "scores/dit-s0/ced/scores.json"):
        write_json(folder / name, record())
    write_json(folder / "cost/dit.json", {"timing": record()})
    write_json(folder / "audit/masks/dit-s0.json", {"timing": record(threads=3)})
    for name in ("tables/table1.csv", "tables/table1.md", "tables/table1.html", "figures/a.png", "figures/a.svg",
                 "audit/README.md", "logs/audit.json", "arms/full-s0/stage2.partial/decision.json"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    write_json(folder / "tracking.json", {})
    return folder


def test_what_is_small_is_published_where_the_run_has_it(run: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second time replaces the first
        publish(run, tmp_path / "published")
    published, made = content(tmp_path / "published"), content(run)
    added = {"curves/full-s0.csv", "dvc.yaml", "machine.json"}
    assert published.keys() - made.keys() == added
    assert {made[file] == published[file] for file in published.keys() - added} == {True}
    left = {file for file in made.keys() - published.keys() if not file.endswith((".npy", ".safetensors", ".jsonl"))}
    assert left == {
        "arms/full-s0/samples/grid.png", "tables/table1.html", "figures/a.svg", "logs/audit.json", "tracking.json",
        "arms/full-s0/stage2.partial/decision.json",
    }  # fmt: skip
    assert published["curves/full-s0.csv"] == b"step,loss\n1,2.0\n2,1.0\n"


def test_a_stage_left_from_a_study_with_more_of_them_is_not_in_the_curve(run: Path, tmp_path: Path) -> None:
    (run / "arms/full-s0/stage2").mkdir()
    (run / "arms/full-s0/stage2/curve.jsonl").write_text(json.dumps({"step": 7, "loss": 9.0}) + "\n")
    publish(run, tmp_path / "published")
    assert (tmp_path / "published/curves/full-s0.csv").read_text() == "step,loss\n1,2.0\n2,1.0\n"


def test_nothing_is_published_of_an_unfinished_run(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    with pytest.raises(UserError, match="no arm has"):
        publish(tmp_path / "digits", tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_a_machine_is_described_only_where_it_is_the_one_that_measured(run: Path) -> None:
    said = describe(run)
    assert (said["device"], said["torch"], said["commit"]) == (["a processor"], ["2.1"], ["abc123"])
    assert said["threads"] == [1, 3]  # the audit's commands too
    assert not {"cores", "memory_gib", "system", "libraries"} & said.keys()


def test_this_machine_is_described_with_its_libraries(tmp_path: Path) -> None:
    import platform

    import torch

    here = record(device=processor_name(), python=platform.python_version(), torch=torch.__version__)
    write_json(tmp_path / "arms/a/final/timing.json", here)
    said = describe(tmp_path)
    assert said["cores"] >= 1 and said["memory_gib"] > 0
    assert {"torch", "numpy", "snakemake"} <= said["libraries"].keys()


def test_the_size_of_what_can_be_measured_again_is_told_apart(tmp_path: Path) -> None:
    for name, size in {"pretrain/a/model": 100, "arms/b/final/model": 10, "arms/b/samples/images": 3}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"x" * size)
    write_json(tmp_path / "logs/x.json", {})
    assert describe(tmp_path)["bytes"] == {"all": 113, "measured": 3}


@pytest.mark.parametrize(
    ("path", "trained"),
    [
        ("data/upstream/images.npy", True),
        ("scores/dit-s0/ced/timing.json", True),
        ("arms/full-s0/stage12/timing.json", True),
        ("arms/full-s0/final/timing.json", True),
        ("arms/full-s0/samples/timing.json", False),
        ("arms/full-s0/cut/timing.json", False),
        ("arms/full-s0/metrics.timing.json", False),
        ("cost/dit.json", False),
        ("tables/table1.csv", False),
    ],
)
def test_measuring_begins_with_what_was_trained(path: str, trained: bool) -> None:
    assert is_trained(Path(path)) == trained


@pytest.mark.slow
def test_published_tables_are_built_again_to_the_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """A study's metrics, its tables built from them, published, and built once more from what is published."""
    params, first, clone = PARAMS / "smoke.yaml", tmp_path / "first", tmp_path / "clone"
    finish_smoke(first / "results/smoke")
    assert build(1, "smoke", params, list(read_study([params]).tables), first)
    published = clone / "results/published/smoke"
    publish(first / "results/smoke", published)
    monkeypatch.chdir(clone)
    verify = ["verify", "--study", "smoke", "--expected", "expected.yaml"]
    assert main(["expect", str(published), "--out", "expected.yaml"]) == 0
    assert main(verify) == 0
    said = capfd.readouterr().out
    for file in sorted(file.name for file in (published / "tables").iterdir()):
        assert any(line.split()[:2] == [file, "reproduced"] for line in said.splitlines())

    metrics = published / "arms/full-dit-downstream-s0/metrics.json"
    metrics.write_text(metrics.read_text().replace('"agreement": 0.98', '"agreement": 0.97'))
    assert main(verify) != 0
    said = capfd.readouterr().out
    assert "table1.csv             not reproduced" in said
    assert "agreement              undecided       0.97, expected 0.98" in said


@pytest.mark.slow
@pytest.mark.parametrize("study", sorted(folder.parent.name for folder in PUBLISHED.glob("*/machine.json")))
def test_no_cell_of_this_repository_is_typed_by_hand(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/published").symlink_to(PUBLISHED)
    monkeypatch.chdir(tmp_path)
    params = PARAMS / f"{study}.yaml"
    tables = tables_at(1, study, params)
    assert {file.stem for file in (PUBLISHED / study / "tables").glob("*.csv")} == set(tables)
    stage(1, study, tmp_path / "work")
    assert build(1, study, params, tables, tmp_path / "work")
    found = list(same_files(PUBLISHED / study / "tables", tmp_path / f"work/results/{study}/tables"))
    assert [each for each in found if each.word != "reproduced"] == []
