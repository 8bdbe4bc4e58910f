"""The plan of a study: its FLOPs are those that PyTorch counts, its hours those of a share of a GPU's peaks."""

import json
import runpy
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from scoring_context import ARCHITECTURE, PROCESSES, context, images, network
from snakemake_runs import ROOT
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from entpruner import cli
from entpruner.errors import UserError
from entpruner.layout import WITHIN
from entpruner.params.backbones import Diffusion, Flow, ProcessSettings
from entpruner.params.criteria import CRITERIA
from entpruner.params.datasets import ImageFolder
from entpruner.params.files import read_study
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.planning.gpus import gpu_named
from entpruner.planning.needs import CPU
from entpruner.planning.plan import Plan, as_json, as_text, plan
from entpruner.planning.speed import on_gpu, on_this_machine
from entpruner.proxies import per_sample
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.reporting.records import Records
from entpruner.rules import RULES
from entpruner.rules.rule import Job
from entpruner.scores import score
from entpruner.sizes import nets, work
from entpruner.sizes.work import Network, Speed, Work, evaluations
from entpruner.study.images import images_of
from entpruner.study.resolved import ResolvedStudy

STUDIES = [file for file in sorted((ROOT / "params").glob("*.yaml")) if file.name != "reference.yaml"]
SMOKE = ROOT / "params/smoke.yaml"
UNIT = Speed(1.0, 1.0, 1.0, "a machine of one FLOP/s")


@cache
def planned(file: Path) -> Plan:
    return plan([file], lambda _: UNIT)


@pytest.fixture(scope="module")
def smoke() -> Plan:
    return planned(SMOKE)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_can_be_planned(file: Path) -> None:
    found = planned(file)
    assert max(map(len, as_text(found).splitlines())) <= 120
    everything = as_json(found)["total"]
    rows = sum(row.work.flops for row in found.rules)
    assert everything["flops"] == pytest.approx(everything["seconds"]) == pytest.approx(rows)
    assert [row.rule for row in found.rules] == [name for name in RULES if name in {row.rule for row in found.rules}]
    assert bool(found.audit) == (read_study([file]).audit is not None)


# -------------------------------------------------------------------------------------------------- what PyTorch counts


def small(process: ProcessSettings) -> Network:
    return Network(ARCHITECTURE, process, ARCHITECTURE.depth)


def counted(compute: object) -> int:
    # PyTorch 2.11 counts nothing of the fused kernel without gradients. The counter also follows modules, which fails
    # where autograd.grad asks for the gradient at a module's input.
    unfollowed = {"_fw_pre_hook": lambda *_: None, "_fw_post_hook": lambda *_: None}
    tracker = mock.patch.multiple(ModuleTracker, **unfollowed)
    with tracker, FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()  # type: ignore[operator]
    return counter.get_total_flops()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize(
    "settings", [{}, {"ld_pruner": "one_step", "block_influence": "clean"}], ids=["usual", "other"]
)
def test_a_score_costs_what_pytorch_counts(criterion: str, settings: dict[str, str]) -> None:
    asked = context(Flow(), remove=2, **settings)
    work = small(Flow()).scores(criterion, asked.settings, asked.sampling, blocks=4, remove=2)
    assert work.flops == pytest.approx(counted(lambda: score(criterion, asked)), rel=0.3)  # a coarse declaration


@pytest.mark.parametrize("kept", [0, per_sample.KEPT], ids=["again", "kept"])
def test_the_proxies_cost_what_pytorch_counts(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert work.KEPT == per_sample.KEPT
    for module in (work, per_sample):
        monkeypatch.setattr(module, "KEPT", kept)
    proxies = Proxies(ntk={"samples": 4}, zico={"batch_size": 2})
    samples = ProxySamples(context(Flow()).process, images(), 0, "test", torch.device("cpu"))
    measure = measure_on(network(), samples.process, samples, proxies)
    assert small(Flow()).proxied(3, proxies).flops == pytest.approx(counted(lambda: measure([(1,)])), rel=0.1)


@pytest.mark.parametrize("process", PROCESSES, ids=["diffusion", "flow"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "sde"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_sampling_costs_what_pytorch_counts(process: ProcessSettings, sampler: str, guidance: float) -> None:
    sampling = Sampling(guidance=guidance, diffusion={"steps": 5}, flow={"name": sampler, "steps": 3})
    noise, labels = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    run = context(process).process.sample
    found = counted(lambda: run(network(), noise, labels, sampling, torch.Generator()))
    assert 2 * small(process).sampled(4, sampling) == pytest.approx(found)


def test_an_adaptive_sampler_is_assumed_to_ask_a_hundred_times() -> None:
    assert evaluations(Flow(), Sampling(flow=FlowSampler(name="dopri5", steps=7))) == 100
    assert evaluations(Diffusion(), Sampling(diffusion=DiffusionSampler(steps=25))) == 25


def test_sampling_of_latents_pays_for_what_makes_images_of_them() -> None:
    paper = ResolvedStudy(read_study([ROOT / "params/paper.yaml"]))
    arm = next(arm for arm in paper.arms.values() if arm.schedule == "none" and arm.finetune.method == "full")
    work = RULES["sample"].work(paper, Job("sample", arm=arm.key))
    network, decoded = paper.network(arm.backbone, arm.data), 2 * nets.AUTOENCODER_MACS["kl"][1]
    assert work.sampling == pytest.approx(arm.sampling.samples * (network.sampled(28, arm.sampling) + decoded))


# ---------------------------------------------------------------------------------------------------- what was measured

PUBLISHED = Records(ROOT / "results/published/digits")
TIMINGS = runpy.run_path(str(ROOT / "benchmarks/plan.py"))["recorded"](PUBLISHED)
RECORDED = {  # half of what evaluate takes is its start; the classifier's convolutions have a speed of their own
    rule: found
    for rule, found in TIMINGS.items()
    if not rule.startswith(("audit", "classifier", "cost", "cut", "evaluate", "import"))
}


@pytest.fixture(scope="module")
def digits() -> Plan:
    """At the speed that the published run had on average, in its trainings and in its samplings."""
    found = planned(ROOT / "params/digits.yaml")
    flops = {row.rule: row.work for row in found.rules}
    seconds = {rule: sum(record["seconds"] for record in RECORDED[rule]) for rule in RECORDED}
    trainings = ("pretrain", "adapt", "prune", "recover")
    training = sum(flops[rule].training for rule in trainings) / sum(seconds[rule] for rule in trainings)
    passing = flops["sample"].sampling / seconds["sample"]
    speed = Speed(training, passing, passing, "the published run's machine")
    return found._replace(rules=tuple(row._replace(seconds=speed.seconds(row.work)) for row in found.rules))


@pytest.mark.parametrize("rule", RECORDED)
def test_the_published_run_took_what_is_planned_within_a_factor_of_two(digits: Plan, rule: str) -> None:
    [row] = [row for row in digits.rules if row.rule == rule]
    seconds = [record["seconds"] for record in RECORDED[rule]]
    assert len(seconds) == row.jobs
    assert 0.5 < row.seconds / sum(seconds) < 2


def test_no_published_command_was_slower_or_larger_than_limits_assume() -> None:
    study, timings, speeds = ResolvedStudy(read_study([ROOT / "params/digits.yaml"])), PUBLISHED.timings(), []
    for key, arm in study.arms.items():
        jobs = [(WITHIN.final(key), Job("recover", arm=key)), (WITHIN.samples(key), Job("sample", arm=key))]
        jobs += [(WITHIN.stage(key, n), Job("prune", arm=key, stage=n)) for n in range(1, arm.stages + 1)]
        for made, job in jobs:
            seconds = timings[made.files["timing"].as_posix()]["seconds"]
            speeds.append(RULES[job.rule].work(study, job).flops / seconds)
    assert min(speeds) == pytest.approx(17e9, rel=0.02) and min(speeds) > max(CPU[:3])
    assert round(max(timing["peak_memory_mb"] for timing in timings.values())) == 755


def test_the_published_run_did_the_steps_and_flops_that_are_planned(digits: Plan) -> None:
    for rule in ("pretrain", "adapt", "recover", "prune"):
        [row] = [row for row in digits.rules if row.rule == rule]
        done = RECORDED[rule]
        assert row.work.steps == sum(timing["steps"] for timing in done)
        assert row.work.training == pytest.approx(
            sum(timing["flops"] for timing in done), rel=0.1
        )  # votes go elsewhere


def test_the_published_run_left_about_the_bytes_that_are_planned(digits: Plan) -> None:
    left = PUBLISHED["machine.json"]["bytes"]["all"]
    assert sum(row.work.disk for row in digits.rules) == pytest.approx(left, rel=0.1)


@pytest.mark.parametrize(("seconds", "within"), [(0.6, True), (0.4, False)])
def test_a_finished_run_is_compared_rule_by_rule(smoke: Plan, seconds: float, within: bool) -> None:
    benchmark = runpy.run_path(str(ROOT / "benchmarks/plan.py"))
    planned_seconds = {row.rule: row.seconds / row.jobs for row in smoke.rules}
    record = {"peak_gpu_memory_mb": 0, "device": "one", "threads": 2, "python": "3", "torch": "2", "seconds": 1e9}
    records = {
        rule: [record | {"cpu_seconds": 2 * planned_seconds[rule] * share}] * 3
        for rule, share in {"recover": 1.0, "evaluate": seconds}.items()
    }
    content = benchmark["compared"](smoke, records)
    assert content["measured_by"].startswith("the commands' CPU seconds")
    assert content["rules"]["recover"]["ratio"] == pytest.approx(1)
    assert content["rules"]["evaluate"]["ratio"] == pytest.approx(1 / seconds)
    assert content["rules"]["evaluate"]["within"] is within
    assert ("NO" in benchmark["as_text"](content)) is not within
    on_a_clock = benchmark["compared"](smoke, records | {"sample": [record]})
    assert on_a_clock["measured_by"].startswith("the clock")
    assert on_a_clock["rules"]["recover"]["measured_seconds"] == pytest.approx(
        1e9 * content["rules"]["recover"]["jobs"]
    )


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    smoke = str(ROOT / "params/smoke.yaml")
    assert cli.main(["plan", smoke, "--gpu", "a100 80gb", "--mfu", "0.2"]) == 0
    table = capsys.readouterr().out
    assert (
        "A100 80GB at 20% of its peaks\nFLOP/s: training 62.4 T, sampling 31.2 T, measuring 3.9 T" in table
        and "recover" in table
    )
    assert cli.main(["plan", smoke, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"]["jobs"] == sum(row["jobs"] for row in found["rules"])
    assert "H100 SXM" in found["speed"]["machine"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--gpu", "H1000 SXM"], "did you mean H100 SXM"),
        (["--gpu", "h100"], "did you mean H100 SXM or H100 PCIe"),
        (["--gpu", "RTX 4090"], "or any other as in tflops=165,memory=24"),
        (["--gpu", "tflops=165,vram=24"], "got tflops=165,vram=24; allowed: tflops and memory"),
        (["--gpu", "tflops=0,memory=24"], "each once and above 0"),
        (["--mfu", "40"], "a share of the GPU's peak"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_option_is_one_line(given: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(ROOT / "params/smoke.yaml"), *given]) == 1
    assert said in capsys.readouterr().err


def test_any_gpu_may_be_described_by_its_peaks() -> None:
    own = gpu_named("tflops=165.2,memory=24,float32=82.6")
    assert (own.bf16, own.float32, own.memory) == (165.2, 82.6, 24)
    assert gpu_named("memory=80, tflops=312").float32 == gpu_named("A100 80GB").float32


def test_hours_are_flops_over_the_share_of_the_peak(smoke: Plan) -> None:
    speed, works = on_gpu(gpu_named("H100 SXM"), 0.5), {row.rule: row.work for row in smoke.rules}
    assert speed.seconds(works["pretrain"]) == pytest.approx(works["pretrain"].flops / (0.5 * 989.4e12))
    assert speed.seconds(works["sample"]) == pytest.approx(works["sample"].flops / (0.5 * 494.7e12))
    assert speed.seconds(works["classifier"]) == pytest.approx(works["classifier"].flops / (0.5 * 67e12))


def test_a_gpu_that_is_too_small_is_named_in_a_note() -> None:
    found = planned(ROOT / "params/paper.yaml")._replace(speed=on_gpu(gpu_named("L4"), 0.4))
    small, large = as_text(found), as_text(found._replace(speed=on_gpu(gpu_named("H200"), 0.4)))
    assert "These need more memory than such a GPU's 24.0 GB: adapt, score, prune, recover," in small
    assert max(map(len, small.splitlines())) <= 120
    assert "more memory" not in large


def test_processes_share_the_longest_job_and_not_its_device_hours(tmp_path: Path, smoke: Plan) -> None:
    (tmp_path / "four.yaml").write_text("compute: {gpus: 2, nodes: 2}\n")
    shared = plan([SMOKE, tmp_path / "four.yaml"], lambda _: UNIT)
    alone = {row.rule: row for row in smoke.rules}
    for row in shared.rules:
        assert row.seconds == alone[row.rule].seconds
        if row.rule in ("pretrain", "adapt", "sample"):  # a monitored recovery measures in the first process alone
            assert row.longest == pytest.approx(alone[row.rule].longest / 4)
        if row.rule in ("score", "classifier"):
            assert row.longest == alone[row.rule].longest
    assert "The longest job of pretrain, adapt, prune, recover, sample, evaluate runs on 4 devices." in as_text(shared)
    assert "devices." not in as_text(smoke)


def test_what_only_the_first_process_does_is_not_divided() -> None:
    assert UNIT.seconds(Work(training=8.0, measuring=3.0), processes=4) == 2 + 3


def test_this_machine_is_tried_at_every_kind_of_work() -> None:
    speed = on_this_machine(ResolvedStudy(read_study([SMOKE])))
    assert min(speed.training, speed.sampling, speed.measuring) > 1e6
    assert speed.machine.endswith("measured now")


# ----------------------------------------------------------------------------------------------------------- the images


def test_images_are_counted_from_their_names(tmp_path: Path) -> None:
    archive = tmp_path / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("train/a/0.jpg", "train/a/1.jpg", "train/b/0.jpg", "val/a/0.jpg", "val/b/0.jpg"):
            file.writestr(name, b"no image at all")
    dataset = ImageFolder(source="image_folder", path=str(archive), image_size=32)
    assert images_of(dataset) == (3, 2, 2, None)
    archive.write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged archive"):
        images_of(dataset)


def test_a_source_that_is_not_here_is_named_and_not_counted(tmp_path: Path) -> None:
    study: dict[str, Any] = yaml.safe_load(SMOKE.read_text())
    study["datasets"]["upstream"] = {"source": "image_folder", "path": "nowhere.zip", "image_size": 8}
    study["datasets"]["downstream"] = study["datasets"]["upstream"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    found = plan([tmp_path / "study.yaml"], lambda _: UNIT)
    assert "nowhere.zip is not here: its images are not counted." in as_text(found)
    assert found.missing == ("nowhere.zip",)
