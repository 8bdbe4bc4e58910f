"""The workflow where others meet it: as a module of another workflow, in pictures, and beside another checkout."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake_runs import ROOT, copy_sources, environment, planned

from entpruner import cli

OTHER = """
configfile: "study.yaml"

module entpruner:
    snakefile: "{root}/workflow/Snakefile"
    config: config

use rule * from entpruner as entpruner_*

rule mine:
    default_target: True
    input: "results/smoke/tables/table1.md"
    output: "mine.txt"
    shell: "true; head -1 {{input}} > {{output}}"
"""


def snakemake(folder: Path, *arguments: str, **more: str) -> str:
    """What Snakemake prints in a process of its own, as its user starts it."""
    line = [str(Path(sys.executable).parent / "snakemake"), *arguments]
    run = subprocess.run(line, cwd=folder, env=environment(**more), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_another_workflow_takes_this_one_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_bytes((ROOT / "params/smoke.yaml").read_bytes())
    (tmp_path / "Snakefile").write_text(OTHER.format(root=ROOT))
    jobs = planned(snakemake(tmp_path, "--cores", "2", "--dry-run"))
    assert jobs.pop("mine") == 1
    assert jobs["entpruner_prune"] == 3 and set(jobs) > {"entpruner_data", "entpruner_table"}
    made = snakemake(tmp_path, "--cores", "2", "results/smoke/data/upstream/manifest.json")
    assert "entpruner_data" in made and (tmp_path / "results/smoke/data/upstream/images.npy").exists()


def test_a_picture_of_the_rules_needs_no_cores() -> None:
    assert "entpruner" not in snakemake(ROOT, "--rulegraph", "mermaid-js", "--configfile", "params/smoke.yaml")


def test_jobs_run_the_code_of_the_checkout_whose_workflow_it_is(tmp_path: Path) -> None:
    """Though another one is installed."""
    house = copy_sources(tmp_path / "house")
    file = house / "entpruner/data/digits.py"
    file.write_text(file.read_text() + "\nraise SystemExit('this checkout')\n")
    line = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", "--configfile", "params/smoke.yaml"]
    target = ["--", "results/smoke/data/upstream/manifest.json"]
    given = environment()
    given.pop("PYTHONPATH")
    run = subprocess.run([*line, *target], cwd=house, env=given, capture_output=True, text=True, check=False)
    assert f"jobs run the code of {house}" in run.stderr
    assert "this checkout" in run.stderr + "".join(log.read_text() for log in house.glob("results/smoke/logs/**/*.log"))


def test_the_catalogue_finds_what_it_asks_for() -> None:
    catalogue = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())
    assert catalogue["usage"]["report"] is True
    assert (ROOT / "workflow/Snakefile").exists() and (ROOT / "config/README.md").exists()


@pytest.mark.parametrize("option", ["--configfile", "--configfiles"])
def test_a_target_behind_the_params_files_is_told(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    program = ["snakemake", option, str(ROOT / "params/smoke.yaml"), "results/x.md", "--cores", "1"]
    assert cli.main(["warm", "--", *program]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("results/x.md: no such file; a target stands before --configfile, or behind --")
