"""The workflow by its dry runs: what it plans, what a change reruns, and what it refuses."""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from snakemake_runs import ROOT, command, copy_sources, environment, planned, snakemake

from entpruner.params.base import merge
from entpruner.params.files import read_study
from entpruner.params.reporting import ArmsFigure, ScoresFigure

SMOKE = ROOT / "params/smoke.yaml"
RULES = {
    line.split()[1].rstrip(":")
    for file in (ROOT / "workflow/rules").glob("*.smk")
    for line in file.read_text().splitlines()
    if line.startswith("rule ")
}
OF_OTHER_STUDIES = {  # the smoke study takes nothing from elsewhere, works on pixels, and has one seed
    "download", "import_checkpoint", "autoencoder", "latents_shard", "latents", "effects",
}  # fmt: skip


class House:
    """A finished run of the smoke study, all of whose files are empty, and one by a copy of the sources beside it."""

    def __init__(self, folder: Path) -> None:
        self.run, self.study, self.sources = folder / "run", folder / "study.yaml", copy_sources(folder / "sources")
        shutil.copy(SMOKE, self.study)
        self.run.mkdir()
        files = [line.split("\t")[0] for line in self.snakemake("--summary").splitlines() if line.startswith("results")]
        for file in files:
            (self.run / file).parent.mkdir(parents=True, exist_ok=True)
            (self.run / file).touch()
        self.snakemake("--touch", "--forceall")
        self.run_of_copy = shutil.copytree(self.run, folder / "run of copy")
        self.snakemake("--touch", "--forceall", copy=True)

    def snakemake(self, *arguments: str, copy: bool = False) -> str:
        folder, sources = (self.run_of_copy, self.sources) if copy else (self.run, ROOT)
        return snakemake(folder, "--configfile", str(self.study), *arguments, house=sources)

    def plan(self, copy: bool = False) -> dict[str, int]:
        return planned(self.snakemake("--dry-run", copy=copy))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@contextmanager
def changed(file: Path, change: Callable[[str], str]) -> Iterator[None]:
    original = file.read_bytes()
    file.write_text(change(original.decode()))
    try:
        yield
    finally:
        file.write_bytes(original)


# ------------------------------------------------------------------------------------------------------------ planning


def test_the_smoke_study_plans_every_rule_and_every_kind_of_figure(tmp_path: Path) -> None:
    jobs = planned(snakemake(tmp_path, "all", "audit", "--dry-run", "--configfile", str(SMOKE)))
    assert jobs.keys() == RULES - OF_OTHER_STUDIES
    kinds = {figure["kind"] for figure in yaml.safe_load(SMOKE.read_text())["figures"].values()}
    assert kinds == {*get_args(ScoresFigure.model_fields["kind"].annotation),
                     *get_args(ArmsFigure.model_fields["kind"].annotation)}  # fmt: skip


def test_the_audit_of_a_u_net_is_without_what_knows_transformers_alone(tmp_path: Path) -> None:
    output = snakemake(
        tmp_path, "audit", "--dry-run", "--printshellcmds", "--configfile", str(ROOT / "params/unet.yaml")
    )
    jobs = planned(output)
    assert (jobs["audit_masks"], jobs["audit_choices"]) == (3, 3)
    assert not jobs.keys() & {"audit_proxies", "audit_schedules"}
    scored = [line for line in output.splitlines() if "entpruner rule audit_scores" in line]
    assert ['"criterion":"learned"' in line for line in scored] == [False] * 3
    masked = [line for line in output.splitlines() if "entpruner rule audit_masks" in line]
    assert ['"chains":0' in line for line in masked] == [True] * 3


def test_only_a_table_that_shows_it_asks_for_the_distance_before_recovery(house: House) -> None:
    assert planned(house.snakemake("--dry-run", "--forceall"))["cut"] == 1  # of the table's two arms, one is pruned
    with changed(house.study, lambda text: text.replace("distance_before, ", "")):
        jobs = planned(house.snakemake("--dry-run", "--forceall"))
        assert "cut" not in jobs and jobs["sample"] == jobs["evaluate"] == 4


def test_an_ablation_lies_over_the_default_study(tmp_path: Path) -> None:
    ablation = ROOT / "params/ablations/reduction.yaml"
    output = snakemake(tmp_path, "--dry-run", "results/digits/tables/reduction.md", "--configfile", str(ablation))
    assert planned(output)["table"] == 1
    assert planned(output)["sample"] == 2 * 3  # before and after recovery: EntPruner, and both reductions
    assert "by ced-ced_timestep" in output


def test_every_ablation_file_is_sound_and_needs_no_other() -> None:
    files = sorted((ROOT / "params/ablations").glob("*.yaml"))
    assert len(files) >= 3
    for file in files:
        study = read_study([file])
        assert set(study.tables) > set(read_study([ROOT / "params/digits.yaml"]).tables), file


def test_methods_start_at_the_pretrained_network_and_distillation_has_a_teacher(tmp_path: Path) -> None:
    lora = {"label": "LoRA", "backbone": "sit", "data": "downstream", "start": "pretrained"}
    study = yaml.safe_load(SMOKE.read_text())
    study["arms"]["lora"] = lora | {"override": {"finetune": {"method": "lora"}}}
    study["arms"]["adapters"] = lora | {"override": {"finetune": {"method": "adapters", "adapter_width": 4}}}
    study["arms"]["taught"] = study["arms"]["entpruner"] | {"override": {"finetune": {"distillation": {}}}}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))

    def plan(target: str) -> str:
        return snakemake(
            tmp_path, "--dry-run", "--printshellcmds", f"results/smoke/{target}", "--configfile", str(file)
        )

    output = plan("arms/lora-sit-downstream-s0/final/model.json")
    assert planned(output) == {"data": 2, "pretrain": 1, "recover": 1}
    assert "--init results/smoke/pretrain/sit-s0" in output
    assert '"new_labels":true' in output and "--teacher" not in output
    assert '"adapter_widths":[4]' in plan("cost/sit-downstream.json")
    output = plan("arms/taught-sit-downstream-r50-s0/final/model.json")
    assert planned(output)["prune"] == 2
    assert output.count("--teacher results/smoke/adapt/sit-downstream-s0") == 3  # two stages and the recovery


def test_a_study_of_latents_encodes_each_data_set_and_measures_pixels(tmp_path: Path) -> None:
    study = yaml.safe_load(SMOKE.read_text())
    del study["audit"]
    for name in study["datasets"]:
        study["datasets"][name] = {"source": "image_folder", "path": f"{name}.zip", "image_size": 16}
    study["latents"] = {"kind": "kl", "folder": "vae", "factor": 4, "shards": 3}
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    output = snakemake(tmp_path, "--dry-run", "--printshellcmds", "--configfile", str(file))
    jobs = planned(output)
    assert (jobs["data"], jobs["autoencoder"], jobs["latents_shard"], jobs["latents"]) == (2, 1, 6, 2)
    stores = dict(re.findall(r"entpruner rule (\w+) .* --store results/smoke/(\w+)/", output))
    pixels = {"classifier", "evaluate", "latents", "latents_shard"}
    networks = {"pretrain", "adapt", "score", "prune", "recover", "cost"}
    assert stores == dict.fromkeys(pixels, "data") | dict.fromkeys(networks, "latents")
    decoded = re.findall(r"entpruner rule sample .*", output)
    options = "--autoencoder results/smoke/autoencoder --latents results/smoke/latents/downstream"
    assert decoded and all(options in line for line in decoded)


def test_forced_and_partial_runs(house: House) -> None:
    assert planned(house.snakemake("--dry-run", "--forcerun", "table")) == REPORTED
    scored = planned(house.snakemake("--dry-run", "--forceall", "--until", "score"))
    assert scored == {"data": 2, "pretrain": 2, "adapt": 2, "score": 5}


@pytest.mark.parametrize("graph", ["--dag", "--rulegraph"])
def test_graphs(graph: str, tmp_path: Path) -> None:
    output = snakemake(tmp_path, "all", "audit", graph, "--configfile", str(SMOKE))
    assert "digraph" in output
    assert all(f'label = "{rule}' in output for rule in RULES - OF_OTHER_STUDIES)


def test_lint(tmp_path: Path) -> None:
    """All rules run in the environment of requirements.lock, so no rule names one of its own."""
    said = snakemake(tmp_path, "--lint", "--configfile", str(SMOKE), succeeds=False)
    assert set(re.findall(r"^    \* (.*):$", said, re.MULTILINE)) == {
        "Specify a conda environment or container for each rule."
    }


# ------------------------------------------------------------------------------------------------------ what is rerun


def test_a_finished_run_has_nothing_to_do(house: House) -> None:
    output = house.snakemake("--dry-run")
    assert "Nothing to be done" in output
    assert "missing provenance" not in output


# Four arms are sampled after recovery, one also as its last cut left it; three figures are of scores, four of arms.
REPORTED = {"table": 2, "story": 1, "track": 1}


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        pytest.param(
            {"sampling": {"guidance": 2.0}},  # LD-Pruner compares sampled latents; the other criteria don't sample
            {"score": 1, "prune": 1, "recover": 1, "sample": 5, "evaluate": 5, "figure": 3, **REPORTED},
            id="guidance",
        ),
        pytest.param(
            {"finetune": {"learning_rate": 0.01}},
            {"prune": 3, "recover": 4, "cut": 1, "sample": 5, "evaluate": 5, "figure": 5, **REPORTED},
            id="learning_rate",
        ),
        pytest.param(
            {"scoring": {"draws": 32}},  # not the two unpruned arms
            {"score": 5, "prune": 3, "recover": 2, "cut": 1, "sample": 3, "evaluate": 3, "figure": 8, **REPORTED},
            id="draws",
        ),
        pytest.param(
            {"evaluation": {"classifier": {"steps": 30}}},
            {"classifier": 1, "evaluate": 5, "figure": 1, **REPORTED},
            id="classifier",
        ),
        pytest.param({"arms": {"entpruner": {"label": "ours"}}}, {"figure": 5, **REPORTED}, id="label"),
        pytest.param(
            {"tables": {"table1": {"caption": "Downstream"}}}, {"table": 1, "story": 1, "track": 1}, id="caption"
        ),
        pytest.param(
            {"tables": {"table1": {"columns": ["distance"]}}}, {"table": 1, "story": 1, "track": 1}, id="columns"
        ),
    ],
)
def test_a_changed_key_reruns_what_depends_on_it(change: dict[str, Any], reruns: dict[str, int], house: House) -> None:
    with changed(house.study, lambda text: yaml.safe_dump(merge(yaml.safe_load(text), change), sort_keys=False)):
        assert house.plan() == reruns


@pytest.mark.parametrize(
    ("module", "reruns"),
    [
        (
            "proxies/ntk.py",
            {"prune": 3, "recover": 2, "cut": 1, "sample": 3, "evaluate": 3, "figure": 5, **REPORTED},
        ),
        ("evaluation/fidelity.py", {"evaluate": 5, "figure": 1, **REPORTED}),
        ("reporting/figures.py", {"figure": 8, "story": 1}),
        ("reporting/tables.py", {"table": 2, "story": 1, "track": 1}),
        ("reporting/story/page.py", {"story": 1}),
    ],
)
def test_a_changed_line_of_code_reruns_what_imports_it(module: str, reruns: dict[str, int], house: House) -> None:
    with changed(house.sources / "entpruner" / module, lambda text: text + "another_line = True\n"):
        assert house.plan(copy=True) == reruns


TRAININGS = {"classifier", "pretrain", "adapt", "score", "prune", "recover", "cut", "sample", "evaluate"}
ROOMS = [
    "planning/plan.py", "planning/needs.py", "sizes/memory.py", "sizes/work.py", "rules/prune.py", "rules/audit.py",
    "study/resolved.py", "study/arms.py", "reporting/tables.py", "reporting/verify.py", "params/audit.py",
    "params/reporting.py", "params/files.py", "audit/report/page.py", "audit/report/chapter_claims.py", "errors.py",
    "layout.py", "system/progress.py", "system/study_line.py", "system/launch.py", "system/warm.py", "system/slurm.py",
    "cli/__init__.py", "cli/rule.py", "reporting/story/page.py", "reporting/ending.py",
]  # fmt: skip


def test_an_edit_of_a_room_that_makes_no_number_reruns_no_training_score_or_sampling(house: House) -> None:
    edited = [house.sources / "entpruner" / room for room in ROOMS]
    with ExitStack() as edits:
        for file in edited:
            edits.enter_context(changed(file, lambda text: text + "\nanother_line = True\n"))
        assert not house.plan(copy=True).keys() & TRAININGS


def test_other_words_rerun_nothing(house: House) -> None:
    """A comment, a docstring, the message of an error and a line of the log, in modules that all trainings import."""
    with ExitStack() as edits:
        for file in sorted((house.sources / "entpruner").rglob("*.py")):
            edits.enter_context(changed(file, reworded))
        assert house.plan(copy=True) == {}


def reworded(text: str) -> str:
    text = re.sub(r'raise UserError\("(?=\w)', 'raise UserError("another ', text)
    text = re.sub(r'log\.info\("', 'log.info("another ', text)
    return re.sub(r'^( +)"""(?=\w)', r'\1"""Another. ', text, flags=re.MULTILINE) + "\n# another comment\n"


# ----------------------------------------------------------------------------------------------------- what is refused


def test_an_audit_of_a_study_without_one_is_refused_in_one_line(tmp_path: Path) -> None:
    study = {key: value for key, value in yaml.safe_load(SMOKE.read_text()).items() if key != "audit"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    said = snakemake(tmp_path, "audit", "--configfile", str(tmp_path / "study.yaml"), succeeds=False)
    assert said.splitlines()[-1] == "study smoke has no section audit; add one, as params/digits.yaml has"
    assert "Traceback" not in said


def test_a_wrong_params_file_stops_before_any_job(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    mistakes = {"finetune": {"batchsize": 8}, "arms": {"ld_pruner": {"ratio": 1.2}, "entpruner": {"criterion": "cde"}}}
    wrong.write_text(yaml.safe_dump(merge(yaml.safe_load(SMOKE.read_text()), mistakes), sort_keys=False))
    _, *said = snakemake(tmp_path, "--configfile", str(wrong), succeeds=False).splitlines()  # the first names a profile
    assert [line.split(" got ")[0] for line in said] == [
        f"{wrong}: finetune.batchsize:",
        f"{wrong}: arms.ld_pruner.ratio:",
        f"{wrong}: arms.entpruner.criterion:",
    ]
    assert said[0].endswith("did you mean 'batch_size'?")
    assert not (tmp_path / "results").exists()


def test_snakemake_looks_at_the_ready_jobs_only_when_one_has_ended(tmp_path: Path) -> None:
    """Its limit on jobs a second would set a timer whenever it has looked, and look again when the timer ends."""
    forbidden = "import sys, threading; threading.Timer = None; from snakemake.cli import main; main(sys.argv[1:])"
    _, *arguments = command(tmp_path, "results/digits/data/upstream/manifest.json")
    run = subprocess.run(
        [sys.executable, "-c", forbidden, *arguments], env=environment(), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "1 of 1 steps (100%) done" in run.stderr


def test_of_two_at_once_the_second_is_told_to_wait(tmp_path: Path) -> None:
    target = "results/smoke/data/upstream/manifest.json"
    arguments = [target, "--configfile", str(SMOKE)]
    with subprocess.Popen(command(tmp_path, *arguments), env=environment(), stderr=subprocess.DEVNULL) as first:
        while not list(tmp_path.glob(".snakemake/locks/*.output.lock")):
            assert first.poll() is None
            time.sleep(0.02)
        first.send_signal(signal.SIGSTOP)  # it holds the lock for as long as the second needs
        try:
            said = snakemake(tmp_path, *arguments, succeeds=False)
        finally:
            first.send_signal(signal.SIGCONT)
    assert "Directory cannot be locked" in said and str(tmp_path) in said
    assert first.returncode == 0
    assert (tmp_path / target).exists()


def without_root_rights() -> None:
    """In a child: root is to be bound by file permissions as other users are."""
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: not kept when it starts a program


def test_read_only_results_are_refused_and_left_alone(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir(mode=0o555)
    asked = [sys.executable, "-c", f"import os; print(os.access({str(results)!r}, os.W_OK))"]
    if subprocess.check_output(asked, preexec_fn=without_root_rights) == b"True\n":
        pytest.skip("this user may write into a read-only folder")
    said = snakemake(tmp_path, "--configfile", str(SMOKE), succeeds=False, before=without_root_rights)
    _, said = said.splitlines()  # the first names a profile
    assert said == "results is read-only: make it writable, or run with --directory in a folder that is"
    assert list(results.iterdir()) == []


def test_what_a_lab_must_bring_is_said_before_anything_runs_until_it_is_used(tmp_path: Path) -> None:
    target = "results/paper/data/artbench/manifest.json"
    paper = (target, "--configfile", str(ROOT / "params/paper.yaml"), "--dry-run", "--quiet", "rules")
    missing = (
        "not here yet: data/ILSVRC2012_img_train.tar, data/ILSVRC2012_img_val.tar, data/ILSVRC2012_devkit_t12.tar.gz"
    )
    said = snakemake(tmp_path, *paper)
    assert f"{missing}, data/artbench-10-imagefolder-split.tar, data/DiT-XL-2-256x256.pt, data/SiT-XL-2-256.pt;" in said
    (tmp_path / "data").mkdir()
    for name in ("artbench-10-imagefolder-split.tar", "DiT-XL-2-256x256.pt"):
        (tmp_path / "data" / name).touch()
    store = tmp_path / "results/paper/data/upstream/manifest.json"
    store.parent.mkdir(parents=True)
    store.touch()
    assert "not here yet: data/SiT-XL-2-256.pt;" in snakemake(tmp_path, *paper)


def test_a_feature_net_that_is_missing_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    tiny = ROOT / "params/tiny_imagenet.yaml"
    target = "results/tiny_imagenet/data/upstream/manifest.json"
    said = snakemake(tmp_path, target, "--configfile", str(tiny), "--dry-run", "--quiet", "rules")
    assert "data/oxford-flowers-12.zip, data/squeezenet1_0-imagenet.safetensors;" in said


def test_the_documented_steps_on_one_gpu_are_targets_of_this_study() -> None:
    from snakemake.cli import get_argument_parser

    section = (ROOT / "docs/howto/gpus.md").read_text().split("## On one GPU")[1].split("\n## ")[0]
    alias = re.search(r"alias run='entpruner warm -- snakemake (.*)'", section)
    assert alias, section
    steps = re.findall(r"^    run( results/\S+)?", section, re.MULTILINE)
    assert len(steps) > 4
    for target in steps:
        given = get_argument_parser().parse_args(f"{alias[1]}{target}".split())
        assert [str(file) for file in given.configfile] == ["params/tiny_imagenet.yaml"]
        assert list(given.targets) == target.split()


def test_the_command_that_a_table_gives_for_a_row_ends_its_params_files_before_the_target(tmp_path: Path) -> None:
    from snakemake.cli import get_argument_parser

    files = ["--configfile", str(SMOKE), str(ROOT / "params/ablations/reduction.yaml")]
    said = snakemake(tmp_path, "--dry-run", "--printshellcmds", "results/smoke/tables/table1.md", *files)
    commands = set(re.findall(r'"command":"snakemake ([^"]*)"', said))
    assert len(commands) == 1
    given = get_argument_parser().parse_args([*commands.pop().split(), "target"])
    assert (len(given.configfile), list(given.targets)) == (2, ["target"])
