"""The plan of a study: its jobs are Snakemake's, its FLOPs those that PyTorch counts, its hours those that were
measured."""

import json
import runpy
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scoring_context import ARCHITECTURE, PROCESSES, context, images, network
from snakemake_runs import ROOT, planned, snakemake
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from entpruner import cli
from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.evaluation import fidelity
from entpruner.evaluation.extractors import FeatureNet
from entpruner.params.arms import Criterion
from entpruner.params.backbones import Diffusion, Flow, ProcessSettings
from entpruner.params.datasets import ImageFolder
from entpruner.params.evaluation import Evaluation
from entpruner.params.files import read_study
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.params.study import Study
from entpruner.planning import fits
from entpruner.planning.audit import audited
from entpruner.planning.gpus import gpu_named
from entpruner.planning.images import images_of
from entpruner.planning.jobs import Job, audit_jobs, jobs_of
from entpruner.planning.networks import KINDS, Network, Speed, Work, evaluations
from entpruner.planning.report import Plan, as_json, as_text, plan
from entpruner.planning.speed import on_gpu, on_this_machine
from entpruner.planning.work import AUTOENCODERS, INCEPTION_MACS, Planned, torchvision_width
from entpruner.proxies.measure import ProxySamples, measure_on
from entpruner.reporting.records import Records
from entpruner.scores import score
from entpruner.study.arms import expand

PARAMS = sorted((ROOT / "params").glob("*.yaml"))
STUDIES = [file for file in PARAMS if file.name != "reference.yaml"]
UNIT = Speed(*[1.0] * len(KINDS), machine="a machine of one FLOP/s")


def study(name: str) -> Study:
    return read_study([ROOT / f"params/{name}.yaml"])


# -------------------------------------------------------------------------------------------------- what Snakemake says


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_the_jobs_are_those_that_snakemake_plans(file: Path, tmp_path: Path) -> None:
    described = read_study([file])
    targets = ["all", *(["audit"] if described.audit else [])]
    jobs = planned(snakemake(tmp_path, *targets, "--dry-run", "--configfile", str(file)))
    jobs.pop("audit", None)  # as `all`, it makes nothing
    assert Counter(job.rule for job in [*jobs_of(described), *audit_jobs(described)]) == jobs


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_can_be_planned(file: Path) -> None:
    found = plan(read_study([file]), lambda _: UNIT)
    text = as_text(found)
    assert max(map(len, text.splitlines())) <= 120
    everything = as_json(found)["total"]
    assert (
        everything["flops"]
        == pytest.approx(everything["seconds"])
        == pytest.approx(sum(row.work.flops for row in found.rules))
    )


# -------------------------------------------------------------------------------------------------- what PyTorch counts


def small(process: ProcessSettings) -> Network:
    return Network(ARCHITECTURE, process, ARCHITECTURE.depth)


def counted(compute: object) -> int:
    # PyTorch 2.11 counts nothing of the fused kernel without gradients
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()  # type: ignore[operator]
    return counter.get_total_flops()


@pytest.mark.parametrize("criterion", get_args(Criterion))
@pytest.mark.parametrize(
    "settings", [{}, {"ld_pruner": "one_step", "block_influence": "clean"}], ids=["usual", "other"]
)
def test_a_score_costs_what_pytorch_counts(criterion: Criterion, settings: dict[str, str]) -> None:
    asked = context(Flow(), remove=2, **settings)
    work = small(Flow()).scores(criterion, asked.settings, asked.sampling, blocks=4, remove=2)
    assert work.flops == pytest.approx(counted(lambda: score(criterion, asked)), rel=0.15)


def test_the_proxies_cost_what_pytorch_counts() -> None:
    proxies = Proxies(ntk={"samples": 4}, zico={"batch_size": 2})
    samples = ProxySamples(context(Flow()).process, images(), 0, "test", torch.device("cpu"))
    measure = measure_on(network(), samples.process, samples, proxies)
    assert small(Flow()).proxied(3, proxies).flops == pytest.approx(counted(lambda: measure((1,))), rel=0.1)


@pytest.mark.parametrize("process", PROCESSES, ids=["diffusion", "flow"])
@pytest.mark.parametrize("sampler", ["euler", "heun", "sde"])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_sampling_costs_what_pytorch_counts(process: ProcessSettings, sampler: str, guidance: float) -> None:
    sampling = Sampling(guidance=guidance, diffusion={"steps": 5}, flow={"name": sampler, "steps": 3})
    noise, labels = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)
    run = context(process).process.sample
    found = counted(lambda: run(network(), noise, labels, sampling, torch.Generator()))
    assert 2 * small(process).sampled(4, sampling) == pytest.approx(found)


def test_the_distances_of_an_evaluation_are_those_that_are_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def recorded(one: torch.Tensor, other: torch.Tensor) -> float:
        found.append(fits.frechet(len(one), len(other), one.shape[1]))
        return 1.0

    monkeypatch.setattr(fidelity, "frechet_distance", recorded)
    sets = [ImageSet(np.zeros((n, 1, 8, 8), np.uint8), np.arange(n) % 2, 2) for n in (40, 30)]
    net = FeatureNet("net", "inception", lambda images: torch.rand(len(images), 6), torch.device("cpu"), 16)
    fidelity.evaluate(*sets, [net], Evaluation(kid_subset_size=10, kid_subsets=2), seed=0)
    assert sum(found) == fits.distances(40, 30, 6)


@pytest.mark.parametrize(("model", "width"), [("squeezenet1_0", 512), ("resnet50", 2048), ("vgg11", 4096)])
def test_the_features_of_a_published_net_are_counted(model: str, width: int) -> None:
    assert torchvision_width(model) == width


def test_an_adaptive_sampler_is_assumed_to_ask_a_hundred_times() -> None:
    assert evaluations(Flow(), Sampling(flow=FlowSampler(name="dopri5", steps=7))) == 100
    assert evaluations(Diffusion(), Sampling(diffusion=DiffusionSampler(steps=25))) == 25


def test_an_audit_of_latents_pays_for_what_makes_images_of_them() -> None:
    paper = study("paper")
    assert paper.audit is not None
    planned_study = Planned(paper, expand(paper), {name: images_of(data) for name, data in paper.datasets.items()})
    work = audited(planned_study, Job("audit_choices", backbone="dit", seed=0))
    sampled = len(paper.audit.criteria) * paper.audit.samples
    decoding = 2 * AUTOENCODERS["kl"][1] * sampled
    assert work.features == pytest.approx(2 * INCEPTION_MACS * (2_040 + sampled))
    network = planned_study.network("dit", paper.audit.data)
    left = network.depth - round(network.depth * 0.3)
    assert work.sampling == pytest.approx(sampled * network.sampled(left, paper.sampling) + decoding)


# ---------------------------------------------------------------------------------------------------- what was measured

PUBLISHED = Records(ROOT / "results/published/digits")
FILES = runpy.run_path(str(ROOT / "benchmarks/plan.py"))["FILES"]
RECORDED = {  # half of what evaluate takes is its start
    rule: list(PUBLISHED.matching(pattern).values())
    for rule, pattern in FILES.items()
    if not rule.startswith(("audit", "cost", "evaluate"))
}


@pytest.fixture(scope="module")
def digits() -> Plan:
    """At the speed that the published run had on average, in its trainings and in its samplings."""
    found = plan(study("digits"), lambda _: UNIT)
    flops = {row.rule: row.work for row in found.rules}
    seconds = {rule: sum(record["seconds"] for record in RECORDED[rule]) for rule in RECORDED}
    trainings = ("pretrain", "adapt", "prune", "recover")
    training = sum(flops[rule].training for rule in trainings) / sum(seconds[rule] for rule in trainings)
    passing = flops["sample"].sampling / seconds["sample"]
    speed = Speed(training, passing, passing, training, passing, passing, machine="the published run's machine")
    return plan(study("digits"), lambda _: speed)


@pytest.mark.parametrize("rule", RECORDED)
def test_the_published_run_took_what_is_planned_within_a_factor_of_two(digits: Plan, rule: str) -> None:
    [row] = [row for row in digits.rules if row.rule == rule]
    seconds = [record["seconds"] for record in RECORDED[rule]]
    assert len(seconds) == row.jobs
    assert 0.5 < row.seconds / sum(seconds) < 2


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
def test_a_finished_run_is_compared_rule_by_rule(seconds: float, within: bool) -> None:
    benchmark = runpy.run_path(str(ROOT / "benchmarks/plan.py"))
    found = plan(study("smoke"), lambda _: UNIT)
    planned_seconds = {row.rule: row.seconds / row.jobs for row in found.rules}
    record = {"peak_gpu_memory_mb": 0, "device": "one", "threads": 2, "python": "3", "torch": "2", "seconds": 1e9}
    records = {
        rule: [record | {"cpu_seconds": 2 * planned_seconds[rule] * share}] * 3
        for rule, share in {"recover": 1.0, "evaluate": seconds}.items()
    }
    content = benchmark["compared"](found, records)
    assert content["measured_by"].startswith("the commands' CPU seconds")
    assert content["rules"]["recover"]["ratio"] == pytest.approx(1)
    assert content["rules"]["evaluate"]["ratio"] == pytest.approx(1 / seconds)
    assert content["rules"]["evaluate"]["within"] is within
    assert ("NO" in benchmark["as_text"](content)) is not within
    on_a_clock = benchmark["compared"](found, records | {"sample": [record]})
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
        "A100 80GB at 20% of its peaks\nFLOP/s: training 62.4 T, sampling 31.2 T, scoring 3.9 T" in table
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
        (["--mfu", "40"], "a share of the GPU's peak"),
        (["nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_option_is_one_line(given: Sequence[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", str(ROOT / "params/smoke.yaml"), *given]) == 1
    assert said in capsys.readouterr().err


def test_a_feature_net_that_torchvision_does_not_know_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.yaml").write_text(
        "evaluation: {extractors: {net: {kind: torchvision, model: resnet51, weights: resnet.safetensors}}}\n"
    )
    assert cli.main(["plan", str(ROOT / "params/smoke.yaml"), str(tmp_path / "net.yaml")]) == 1
    assert capsys.readouterr().err == (
        "entpruner: evaluation.extractors: torchvision has no classifier 'resnet51'; change `model`\n"
    )


def test_hours_are_flops_over_the_share_of_the_peak() -> None:
    gpu = gpu_named("H100 SXM")
    whole, half = (plan(study("smoke"), lambda _, mfu=mfu: on_gpu(gpu, mfu)) for mfu in (1.0, 0.5))
    rows = [{row.rule: row for row in found.rules} for found in (whole, half)]
    for rule in ("recover", "sample", "classifier"):
        assert rows[1][rule].seconds == pytest.approx(2 * rows[0][rule].seconds)
    assert rows[0]["recover"].seconds == pytest.approx(rows[0]["recover"].work.flops / 989.4e12)
    assert rows[0]["sample"].seconds == pytest.approx(rows[0]["sample"].work.flops / 494.7e12)
    assert rows[0]["classifier"].seconds == pytest.approx(rows[0]["classifier"].work.flops / 67e12)


def test_a_gpu_that_is_too_small_is_named_in_a_note() -> None:
    small, large = (
        as_text(plan(study("paper"), lambda _, name=name: on_gpu(gpu_named(name), 0.4))) for name in ("L4", "H200")
    )
    assert "These need more memory than such a GPU's 24.0 GB: adapt, score, prune, recover," in small
    assert max(map(len, small.splitlines())) <= 120
    assert "more memory" not in large


def test_processes_share_the_longest_job_and_not_its_device_hours() -> None:
    usual = study("smoke")
    four = usual.model_copy(update={"compute": usual.compute.model_copy(update={"gpus": 2, "nodes": 2})})
    one, shared = (plan(each, lambda _: UNIT) for each in (usual, four))
    alone = {row.rule: row for row in one.rules}
    for row in shared.rules:
        assert row.seconds == alone[row.rule].seconds
        if row.rule in ("pretrain", "recover", "sample"):
            assert row.longest == pytest.approx(alone[row.rule].longest / 4)
        if row.rule in ("score", "classifier"):
            assert row.longest == alone[row.rule].longest
    assert "The longest job of pretrain, adapt, prune, recover, sample, evaluate runs on 4 devices." in as_text(shared)
    assert "devices." not in as_text(one)


def test_what_only_the_first_process_does_is_not_divided() -> None:
    work = Work(training=8.0, scoring=3.0, fits=1.0)
    assert UNIT.seconds(work, processes=4) == 2 + 3 + 1
    assert UNIT._replace(start=5.0).seconds(work) == 5 + 12
    assert UNIT._replace(start=5.0).seconds(Work(disk=1.0)) == 0


def test_this_machine_is_tried_at_every_kind_of_work() -> None:
    found = plan(study("smoke"), on_this_machine)
    assert min(found.speed[: len(KINDS)]) > 1e6
    assert found.speed.start > 0
    assert "measured now" in as_text(found)


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


def test_a_source_that_is_not_here_is_named_and_not_counted() -> None:
    missing = {"upstream": ImageFolder(source="image_folder", path="nowhere.zip", image_size=8)}
    smoke = study("smoke")
    found = plan(smoke.model_copy(update={"datasets": smoke.datasets | missing}), lambda _: UNIT)
    assert "nowhere.zip is not here: its images are not counted." in as_text(found)
    assert found.missing == ("nowhere.zip",)
