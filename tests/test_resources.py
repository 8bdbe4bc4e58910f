"""What rules ask for: memory that is near what autograd keeps, limits that grow with the study, one answer a rule."""

import json
import re
import shlex
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scoring_context import ARCHITECTURE
from snakemake_runs import ROOT, snakemake

from entpruner.cli import main, module_of
from entpruner.data.store import write_store
from entpruner.errors import UserError
from entpruner.evaluation.classifier import Classifier
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import SIZES, Architecture
from entpruner.params.compute import Compute
from entpruner.params.evaluation import ClassifierTraining, Evaluation
from entpruner.params.files import read_study
from entpruner.params.latents import KlAutoencoder
from entpruner.params.proxies import Proxies
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.study import Study
from entpruner.params.training import Distillation, Finetuning, Training
from entpruner.planning import memory
from entpruner.planning.jobs import Job, audit_jobs, jobs_of
from entpruner.planning.memory import GIB, Memory
from entpruner.planning.resources import LIBRARIES, assumed, needs
from entpruner.planning.resources import memory as memory_of
from entpruner.planning.resources import require_room as require_room_for
from entpruner.planning.work import Planned
from entpruner.study.arms import expand
from entpruner.system.devices import require_room

SMOKE = ROOT / "params/smoke.yaml"
DEPTH, WIDTH, HEADS = SIZES["XL"]
XL = Architecture(
    depth=DEPTH, hidden_size=WIDTH, num_heads=HEADS, patch_size=2, input_size=32, in_channels=4, num_classes=1000
)
GPU = Compute(device="cuda")


def study(**compute: Any) -> Study:
    content = yaml.safe_load(SMOKE.read_text())
    return Study.model_validate(content | {"compute": content["compute"] | compute})


# -------------------------------------------------------------------------------------------------------------- memory


def kept_by_autograd(network: torch.nn.Module, compute: Callable[[], Any]) -> int:
    """Bytes that it keeps for the backward pass beside the network's weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _whole = compute()  # what is kept goes with it
    return sum(kept.values())


@pytest.mark.parametrize("blocks", [2, 4])
def test_the_activations_of_blocks_are_those_that_autograd_keeps(blocks: int) -> None:
    shape = ARCHITECTURE.model_copy(update={"hidden_size": 64, "input_size": 16})  # 64 tokens
    model = Transformer(shape, tuple(range(blocks)))
    state, c = model.embed(torch.zeros(3, 1, 16, 16), torch.zeros(3), torch.zeros(3, dtype=torch.int64))

    def through() -> torch.Tensor:
        return reduce(lambda state, block: block(state, c), model.blocks, state)

    counted = 3 * blocks * memory.block_activations(shape, half=False)
    assert kept_by_autograd(model, through) == pytest.approx(counted, rel=0.1)


def test_the_activations_of_a_classifier_are_those_that_autograd_keeps_and_two_gradients() -> None:
    settings = ClassifierTraining(batch_size=3)
    net = Classifier(in_channels=1, num_classes=5, width=settings.width, features=settings.features)
    kept = kept_by_autograd(net, lambda: net(torch.zeros(3, 1, 32, 32)))
    needed = memory.classifying(settings, 32)
    assert kept == pytest.approx(needed.images * needed.an_image * 4 / 6, rel=0.1)


def test_a_training_of_the_largest_network_is_known_by_its_parts() -> None:
    whole = memory.training(XL, range(28), Training(steps=1, batch_size=32), GPU)
    assert whole.fixed == 22 * 675_129_632  # weights, average, two moments, gradient: 4 bytes each; a copy in bfloat16
    assert whole.images == 32
    pruned = memory.training(XL, range(14), Training(steps=1, batch_size=32), GPU)
    assert 0.45 < pruned.total / whole.total < 0.6


@pytest.mark.parametrize(
    "compute", [{"micro_batch": 8}, {"gpus": 8}, {"nodes": 2, "gpus": 2}, {"gradient_checkpointing": True}], ids=str
)
def test_what_saves_memory_is_counted_as_less(compute: dict[str, Any]) -> None:
    settings = Training(steps=1, batch_size=64)
    usual, saving = (memory.training(XL, range(28), settings, Compute(device="cuda", **more)) for more in ({}, compute))
    assert saving.total < 0.8 * usual.total
    assert saving.fixed == usual.fixed


def test_what_costs_memory_is_counted_as_more() -> None:
    def trained(**more: Any) -> float:
        return memory.training(XL, range(14), Finetuning(steps=1, **more), GPU).total

    assert trained(method="lora") < trained() < trained(distillation=Distillation())
    guided, unguided = (memory.sampling(XL, range(28), Sampling(guidance=scale)).total for scale in (1.5, 1))
    assert guided > unguided
    pooled, ranked = (memory.scoring(XL, "ced", Scoring(estimator=e), Sampling()).total for e in ("scalar", "knn"))
    assert ranked > pooled
    assert memory.scoring(XL, "taylor", Scoring(), Sampling()).total > 5 * pooled
    own, published = Evaluation(), Evaluation(extractors={"fid": {"kind": "inception"}})
    assert memory.features(own, 32).total < memory.features(published, 32).total
    few, many = (memory.proxies(XL, range(28), Proxies(ntk={"samples": n})).total for n in (4, 64))
    assert many > few


def test_the_audit_keeps_the_network_that_sub_networks_are_cut_from_and_their_decoder() -> None:
    vae = KlAutoencoder(kind="kl", hub="stabilityai/sd-vae-ft-ema")
    training = memory.training(XL, range(28), Training(steps=1, batch_size=32), GPU)
    ranked, measured = memory.bench(XL, 32, GPU), memory.bench(XL, 32, GPU, Sampling(), vae)
    assert ranked.fixed == training.fixed + 4 * 675_129_632
    assert measured.fixed == ranked.fixed + memory.autoencoder_weights(vae)
    swept = memory.swept(XL, Proxies(), (4, 64))
    assert (swept.images, swept.setting) == (64, "audit.proxies.samples")


# ------------------------------------------------------------------------------------------------- asked, not crashed


NEEDED: dict[str, Callable[[], Memory]] = {
    "compute.micro_batch": lambda: memory.training(XL, range(28), Training(steps=1, batch_size=256), GPU),
    "sampling.batch_size": lambda: memory.sampling(XL, range(28), Sampling(batch_size=4000)),
    "scoring.batch_size": lambda: memory.scoring(XL, "taylor", Scoring(), Sampling()),
}


@pytest.mark.parametrize("key", NEEDED)
def test_a_gpu_that_is_too_small_is_refused_with_what_would_fit(key: str) -> None:
    needed, device = NEEDED[key](), torch.device("cpu")
    with pytest.raises(UserError) as error:
        require_room(needed, "the arm", device, free=40 * GIB)
    said = str(error.value)
    assert said.startswith("the arm needs about ") and "has 40: set " in said and "\n" not in said
    (fits,) = re.findall(rf"set {re.escape(key)} to (\d+) or less", said)
    require_room(needed._replace(images=int(fits)), "the arm", device, free=40 * GIB)
    with pytest.raises(UserError):
        require_room(needed._replace(images=int(fits) + 1), "the arm", device, free=40 * GIB)


def test_where_not_one_image_fits_a_larger_gpu_is_advised() -> None:
    with pytest.raises(UserError, match=r"has 8: take a larger GPU, or set compute\.gradient_checkpointing, or more"):
        require_room(NEEDED["compute.micro_batch"](), "the arm", torch.device("cpu"), free=8 * GIB)


def test_what_a_command_holds_of_its_gpu_counts_as_free(gpu: pytest.MonkeyPatch) -> None:
    needed, device = NEEDED["compute.micro_batch"]()._replace(images=8), torch.device("cuda")  # about 20 GiB
    with pytest.raises(UserError, match=r"the arm needs about .*, cuda has 10: take a larger"):
        require_room(needed, "the arm", device)
    gpu.setattr(torch.cuda, "memory_reserved", lambda _: 60 * GIB)  # a vote has left it
    require_room(needed, "the arm", device)


LARGE = {"preset": "SiT-XL/2", "process": {"kind": "flow"}}
COMMANDS: dict[str, dict[str, Any]] = {
    "pretrain": {"artefact": "a", "seed": 0, "training": {"steps": 1}, "backbone": LARGE},
    "cost": {"backbone": LARGE, "blocks": [2], "batch_size": 4096, "repeats": 5},
    "classifier": {"artefact": "a", "seed": 0, "training": {"batch_size": 10**6}},
    "latents_shard": {"latents": {"kind": "kl", "folder": "vae", "batch_size": 10**6}, "shard": 0},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_asks_for_room_before_it_uses_the_gpu(
    gpu: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    images, labels = np.zeros((4, 3, 32, 32), np.uint8), np.zeros(4, np.int64)
    write_store(tmp_path / "store", {"train": (images, labels), "test": (images, labels)}, ["a"], {})
    settings = json.dumps(COMMANDS[command] | {"compute": {"device": "cuda"}})
    out = "parts" if command == "latents_shard" else "out"
    paths = [f"--store={tmp_path}/store", f"--{out}={tmp_path}/out"]
    paths += [f"--autoencoder={tmp_path}/vae"] if command == "latents_shard" else []
    assert main([command, "--settings", settings, *paths]) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"entpruner: .* needs about \S+ GiB of GPU memory .*, cuda has 10: .*\n", said)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert torch.get_float32_matmul_precision() == "high"  # TF32: trainings and samplings multiply in it


def test_a_study_for_a_stated_gpu_says_at_the_workflows_start_what_does_not_fit(tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("compute: {device: cuda, gpu_memory: 0.5}\n")
    said = snakemake(tmp_path, "-n", "--configfile", str(SMOKE), str(small), succeeds=False)
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert re.match(r"\S+ \S+.* needs about \S+ GiB of GPU memory .*, a GPU of compute.gpu_memory has 0\.5: ", last)


def test_the_papers_tables_and_audit_fit_into_the_gpus_that_it_states_and_the_audit_is_asked_too() -> None:
    paper = read_study([ROOT / "params/paper.yaml"])
    assert paper.compute.gpu_memory is not None and paper.compute.gpu_memory < 80  # 80 GB as sold are 79 GiB
    require_room_for(paper)
    audit = paper.audit
    assert audit is not None
    many = audit.model_copy(update={"proxies": audit.proxies.model_copy(update={"samples": (8, 128)})})
    with pytest.raises(UserError, match=r"^audit_proxies dit .* set audit\.proxies\.samples to \d+ or less"):
        require_room_for(paper.model_copy(update={"audit": many}))


def test_the_audits_commands_ask_a_gpu_for_what_the_workflow_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from entpruner.cli import HOW, with_compute

    paper = read_study([ROOT / "params/paper.yaml"])
    images = {name: assumed(dataset) for name, dataset in paper.datasets.items()}
    counted = Planned(paper, expand(paper), images)
    plan = snakemake(tmp_path, "audit", "-n", "-p", "--configfile", str(ROOT / "params/paper.yaml"))
    at_will = paper.compute.model_dump(include=Compute.AT_WILL, exclude_defaults=True)
    monkeypatch.setenv(HOW, json.dumps(at_will))  # as the workflow does
    asked = dict[str, float]()
    for line in plan.splitlines():
        if "entpruner audit_" in line and "audit_report" not in line:
            words = shlex.split(line)
            rule, settings = words[words.index("entpruner") + 1], words[words.index("--settings") + 1]
            command = import_module(module_of(rule))
            asked[rule] = command.Settings.model_validate_json(with_compute(rule, settings)).needed(XL).total
    known = {job.rule: memory_of(counted, job) for job in audit_jobs(paper) if job.rule in asked}
    assert len(asked) == 7
    # a table of 102 classes, not of XL's 1000
    assert asked == {rule: pytest.approx(needed.total, rel=0.01) for rule, needed in known.items() if needed}


def test_a_stage_that_ranks_again_asks_for_that_too() -> None:
    paper = read_study([ROOT / "params/paper.yaml"])
    images = {name: assumed(dataset) for name, dataset in paper.datasets.items()}
    usual = next(arm for arm in expand(paper).values() if arm.pruning.rerank)
    for criterion, setting in (("ced", "compute.micro_batch"), ("taylor", "scoring.batch_size")):
        arm = usual.model_copy(update={"criterion": criterion})
        needed = memory_of(Planned(paper, {arm.key: arm}, images), Job("prune", arm=arm.key, stage=2))
        assert needed is not None and needed.setting == setting


# --------------------------------------------------------------------------------------------------------------- rules


def test_every_rule_asks_for_its_own_resources() -> None:
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", file.read_text(), re.MULTILINE | re.DOTALL):
            name, body = rule
            asked = re.findall(r'ask(?:s|ed)\("(\w+)"', body)
            assert set(asked) <= {name}
            assert asked or "localrule: True" in body or "shell:" not in body, name


def test_every_job_of_every_study_can_be_answered() -> None:
    for file in ROOT.glob("params/*.yaml"):
        if file.name != "reference.yaml":
            described = read_study([file])
            arms = expand(described)
            for job in [*jobs_of(described), *audit_jobs(described)]:
                answer = needs(described, arms, job)
                assert answer.mem_mb >= 1000 and answer.runtime >= 15 and answer.threads >= 1, job


def test_resources_grow_with_the_study() -> None:
    job = Job("pretrain", backbone="sit", seed=0)
    small = study()
    large = small.model_copy(
        update={"pretrain": small.pretrain.model_copy(update={"steps": 10**6, "batch_size": 4096})}
    )
    one, other = (needs(each, {}, job) for each in (small, large))
    assert one.runtime < 20 and other.runtime == 1440  # no longer than a day: it goes on
    assert other.mem_mb > one.mem_mb


def test_reading_the_largest_checkpoint_asks_for_more_than_it_was_found_to_take_but_not_for_all_of_a_node() -> None:
    """5,842 MB at its peak, of 2.7 GB of weights, alone in the file or with average and optimizer."""
    paper = read_study([ROOT / "params/paper.yaml"])
    asked = needs(paper, {}, Job("import_checkpoint", backbone="dit", seed=0)).mem_mb
    assert 1.2 * 5842 < asked < 2 * 5842


def test_threads_share_the_time_of_a_data_set() -> None:
    papers, job = read_study([ROOT / "params/paper.yaml"]), Job("data", data="upstream")
    one, eight = (
        needs(papers.model_copy(update={"compute": Compute(device="cuda", threads=threads)}), {}, job)
        for threads in (1, 8)
    )
    assert (one.threads, eight.threads) == (1, 8)
    assert eight.runtime < one.runtime / 4


def test_processes_share_the_time_and_ask_for_their_gpus_and_nodes() -> None:
    shared, alone = Job("pretrain", backbone="sit", seed=0), Job("cost", backbone="sit", data="upstream")
    four = study(device="cuda", gpus=2, nodes=2, threads=3)
    assert needs(four, {}, shared)[0] == 6  # threads of a node
    assert needs(four, {}, shared)[3:] == (0, "gpu:2", 2, 2, 0, "srun")  # a total SLURM would share unevenly
    assert needs(four, {}, alone)[3:] == (1, None, None, None, None, None)
    assert needs(study(), {}, shared)[3:] == (0, None, None, None, None, None)
    assert needs(study(device="cpu", nodes=2), {}, shared)[3:5] == (0, None)


def test_features_that_one_process_gathers_are_asked_for_once() -> None:
    one, four = (study(device="cuda", gpus=gpus) for gpus in (1, 4))
    arms = expand(one)
    job = Job("evaluate", arm=next(iter(arms)))
    libraries = LIBRARIES["cuda"]
    assert needs(four, arms, job).mem_mb - needs(one, arms, job).mem_mb == 3 * libraries
    assert needs(one, arms, job).mem_mb > libraries


def test_another_number_of_gpus_is_told_to_commands_and_changes_no_settings(tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("compute: {gpus: 2, gradient_checkpointing: true}\n")
    target = "results/smoke/pretrain/sit-s0/model.json"
    plans = [snakemake(tmp_path, "-n", "-p", target, "--configfile", str(SMOKE), *files) for files in ([], [str(more)])]
    first, second = ([line for line in plan.splitlines() if "entpruner pretrain" in line] for plan in plans)
    assert first == second
    assert "gpus" not in first[0]


def test_a_command_hears_of_several_processes_only_if_it_can_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from entpruner.cli import with_compute

    settings = json.dumps({"compute": {"device": "cpu", "threads": 2}})
    assert with_compute("sample", settings) == settings
    monkeypatch.setenv("ENTPRUNER_COMPUTE", json.dumps({"gpus": 2, "compile": True}))
    told = {name: json.loads(with_compute(name, settings))["compute"] for name in ("sample", "score")}
    assert told["sample"] == {"device": "cpu", "threads": 2, "gpus": 2, "compile": True}
    assert told["score"] == {"device": "cpu", "threads": 2, "compile": True}
    assert with_compute("data", '{"dataset": 1}') == '{"dataset": 1}'
