"""SLURM: what its profile asks for, which cluster is refused, and a study through a real one (make test-slurm)."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from slurm_cluster import cluster, run
from snakemake_runs import ROOT, checkpoint_after, command, environment, snakemake, steps

from entpruner.errors import UserError
from entpruner.system.slurm import require_job_states

PROFILES = ROOT / "workflow/profiles"
ADVICE = "add --slurm-status-command squeue"


def read(profile: str) -> dict[str, Any]:
    return yaml.safe_load((PROFILES / profile / "profile.yaml").read_text())


def small_study() -> dict[str, Any]:
    """The smoke study with one backbone and one pruned arm, whose trainings are long enough to be stopped."""
    study = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    del study["backbones"]["dit"], study["arms"]["ld_pruner"], study["arms"]["full"], study["audit"]
    study["pretrain"] |= {"steps": 600, "checkpoint_every": 20}
    study["adapt"] |= {"steps": 600, "checkpoint_every": 20}
    study["tables"] = {"table1": study["tables"]["table1"] | {"arms": ["entpruner"]}}
    study["figures"] = {"kept_blocks": study["figures"]["kept_blocks"] | {"arms": ["entpruner"]}}
    return study


# -------------------------------------------------------------------------------------------------------- its profile


def test_how_often_jobs_that_go_on_are_started_again_is_told_by_the_profiles_alone() -> None:
    """Which jobs do, the rules' records tell."""
    rules = "".join(file.read_text() for file in (ROOT / "workflow/rules").glob("*.smk"))
    assert "retries:" not in rules  # the executor's jobs would heed it too, each within the other
    assert [read(profile)["preemptible-retries"] for profile in ("default", "slurm")] == [2, 20]


def test_the_default_profile_is_found_without_a_flag(tmp_path: Path) -> None:
    target = "results/smoke/data/upstream/manifest.json"
    said = snakemake(tmp_path, "--dry-run", target, "--configfile", str(ROOT / "params/smoke.yaml"))
    assert said.startswith("Using workflow specific profile") and "profiles/default for setting" in said


# ------------------------------------------------------------------------------------------------ which cluster serves


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the only programs there are, but for the shell's."""
    for name in ("sh", "which", "echo"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def program(folder: Path, name: str, code: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{code}\n")
    (folder / name).chmod(0o755)


ANSWERS = "exit 0"
DISABLED = "echo Slurm accounting storage is disabled >&2; exit 1"


@pytest.mark.parametrize(
    ("sacct", "age", "status_command", "interval", "said"),
    [
        (ANSWERS, 300, "sacct", 40, None),
        (ANSWERS, 10, "squeue", 40, None),  # the executor will ask sacct
        (DISABLED, 300, "squeue", 40, None),
        (None, 300, None, 40, None),
        (DISABLED, 30, "squeue", 10, None),
        (DISABLED, 300, "sacct", 40, f"(sacct: Slurm accounting storage is disabled): {ADVICE}"),
        (DISABLED, 300, None, 40, f"(sacct: Slurm accounting storage is disabled): {ADVICE}"),
        ("exit 3", 300, "sacct", 40, f"(sacct: exit code 3): {ADVICE}"),
        (DISABLED, 30, "squeue", 40, f": {ADVICE} --slurm-init-seconds-before-status-checks 10"),
        (None, 30, "squeue", 40, "(sacct: not installed): squeue forgets jobs 30 s after their end"),
    ],
)
def test_a_cluster_that_does_not_tell_how_jobs_end_is_refused_in_one_line(
    programs: Path, sacct: str | None, age: int, status_command: str | None, interval: int, said: str | None
) -> None:
    program(programs, "scontrol", f"echo 'MinJobAge = {age} sec'")
    if sacct:
        program(programs, "sacct", sacct)
    if said is None:
        require_job_states(status_command, interval)
        return
    with pytest.raises(UserError) as refused:
        require_job_states(status_command, interval)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


# --------------------------------------------------------------------------------------------------------- a real one


def on_slurm(*arguments: str) -> list[str]:
    """Snakemake's arguments for a cluster that answers in no time."""
    profile = ["--workflow-profile", str(PROFILES / "slurm"), "--slurm-init-seconds-before-status-checks", "3"]
    return [*profile, "--latency-wait", "10", *arguments]


def training(name: str) -> psutil.Process | None:
    """The process of an ``entpruner`` command, apart from those that started it."""
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if name in line and any(Path(word).name == "entpruner" for word in line):
            return process
    return None


@contextmanager
def going(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A running workflow, which does not outlive the block."""
    with (folder / "said").open("w") as said:
        workflow = subprocess.Popen(command, env=environment(), stdout=said, stderr=said, text=True)
        try:
            yield workflow
        finally:
            workflow.kill()
            workflow.wait()


def lasting(results: Path) -> dict[str, bytes]:
    """What a study's run leaves, without what a clock has told."""
    names = ("*.safetensors", "*.npy", "*metrics.json", "model.json", "manifest.json", "kept_blocks.png")
    return {str(file.relative_to(results)): file.read_bytes() for name in names for file in results.rglob(name)}


@pytest.mark.slurm
def test_a_study_whose_jobs_are_cancelled_and_run_out_of_time_ends_with_the_bits_of_a_local_run(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(small_study(), sort_keys=False))
    given = ["--configfile", str(tmp_path / "study.yaml")]
    local, remote = tmp_path / "local", tmp_path / "remote"
    local.mkdir()
    remote.mkdir()
    pretrain, adapt = (remote / f"results/smoke/{folder}" for folder in ("pretrain/sit-s0", "adapt/sit-downstream-s0"))
    resources = ["pretrain:gpu=1", "pretrain:runtime=3 if attempt == 1 else 60"]
    resources += ["pretrain:slurm_extra='--signal=TERM@60'", "recover:gres='gpu:pretended:2'"]

    with cluster(tmp_path / "cluster", accounting=True):
        with going(command(remote, *on_slurm("--set-resources", *resources), *given), tmp_path) as workflow:
            checkpoint_after(0, pretrain, workflow)
            job = training("pretrain")
            assert job is not None
            job.suspend()  # SLURM wakes it by its signal, which comes on account of the time limit
            before = steps(pretrain)
            job.wait(200)
            saved = steps(pretrain)
            assert saved > before
            seen = checkpoint_after(0, adapt, workflow)
            queue = run("squeue", "--noheader", "--format=%i %k")
            [number] = [line.split()[0] for line in queue.splitlines() if "rule_adapt" in line]
            run("scancel", number)
            assert workflow.wait(900) == 0, (tmp_path / "said").read_text()
        ended = run("sacct", "--allocations", "--noheader", "--parsable2", "--format=Comment,State,AllocTRES")
        jobs = [line.split("|") for line in ended.splitlines()]
        assert {state.split()[0] for _, state, _ in jobs} == {"COMPLETED", "FAILED", "CANCELLED"}
        for rule, gpus in (("pretrain", 1), ("recover", 2)):
            allocated = [tres for comment, _, tres in jobs if f"rule_{rule}_" in comment]
            assert allocated and all(f"gres/gpu={gpus}" in tres for tres in allocated)
    said = (tmp_path / "said").read_text()
    assert said.count("Trying to restart job") >= 2
    log = (remote / "results/smoke/logs/pretrain/sit-s0.log").read_text()
    assert f"going on from results/smoke/pretrain/sit-s0.resume/step-{saved:08d}" in log
    log = (remote / "results/smoke/logs/adapt/sit-downstream-s0.log").read_text()
    gone_on_from = int(log.split("going on from ")[1].split()[0][-8:])
    assert gone_on_from >= seen
    assert not [*remote.rglob("*.resume"), *remote.rglob("*.partial")]

    entpruner = str(ROOT / ".venv/bin/entpruner")
    subprocess.run([entpruner, "warm", "--", *command(local, *given)], env=environment(), check=True)
    made = lasting(remote / "results/smoke")
    assert {"pretrain/sit-s0/model.safetensors", "arms/entpruner-sit-downstream-r50-s0/metrics.json"} < made.keys()
    assert made == lasting(local / "results/smoke")
    for name in ("tables/table1.md", "tracking.json"):
        assert (remote / "results/smoke" / name).exists()


@pytest.mark.slurm
def test_without_accounting_it_works_by_squeue_and_is_refused_with_sacct_before_anything_is_submitted(
    tmp_path: Path,
) -> None:
    given = ["results/smoke/data/upstream/manifest.json", "--configfile", str(ROOT / "params/smoke.yaml")]
    with cluster(tmp_path / "cluster", accounting=False):
        said = snakemake(tmp_path, *on_slurm("--slurm-status-command", "sacct"), *given, succeeds=False)
        line = "SLURM can't tell how jobs end, and none was submitted (sacct: Slurm accounting storage is disabled)"
        assert said.splitlines()[-1] == f"{line}: {ADVICE}"
        assert run("squeue", "--noheader", "--states=all") == ""
        snakemake(tmp_path, *on_slurm(), *given)  # as the profile is; the refused run has left no lock
        assert run("squeue", "--noheader", "--states=all", "--format=%T") == "COMPLETED\n"
    assert (tmp_path / given[0]).exists()
