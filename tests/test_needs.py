"""What jobs ask a machine for: memory near what autograd keeps, limits that grow with the study, and advice on GPUs."""

import json
import re
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scoring_context import ARCHITECTURE
from snakemake_runs import ROOT, snakemake

from entpruner.cli.rule import out_of_memory_explained, with_compute
from entpruner.errors import UserError
from entpruner.evaluation.classifier import Classifier
from entpruner.models.transformer import Transformer
from entpruner.params.audit import AuditedProxies
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
from entpruner.planning.needs import LIBRARIES, largest_jobs, needs, require_room
from entpruner.rules import RULES
from entpruner.rules.rule import Job
from entpruner.sizes import memory
from entpruner.sizes.memory import GIB, Memory
from entpruner.study.resolved import ResolvedStudy

SMOKE = ROOT / "params/smoke.yaml"
DEPTH, WIDTH, HEADS = SIZES["XL"]
XL = Architecture(
    depth=DEPTH, hidden_size=WIDTH, num_heads=HEADS, patch_size=2, input_size=32, in_channels=4, num_classes=1000
)
GPU = Compute(device="cuda")


def study(**compute: Any) -> ResolvedStudy:
    content = yaml.safe_load(SMOKE.read_text())
    return ResolvedStudy(Study.model_validate(content | {"compute": content["compute"] | compute}))


def paper(**changes: Any) -> ResolvedStudy:
    return ResolvedStudy(read_study([ROOT / "params/paper.yaml"]).model_copy(update=changes))


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


def test_processes_that_split_the_state_need_little_more_than_their_part_of_it() -> None:
    settings = Training(steps=1, batch_size=64)
    whole, split = (
        memory.training(XL, range(28), settings, Compute(device="cuda", gpus=8, sharding=sharding))
        for sharding in ("none", "full")
    )
    assert whole.fixed / 8 < split.fixed < whole.fixed / 4
    assert split.images * split.an_image == whole.images * whole.an_image
    one = memory.training(XL, range(28), settings, GPU)
    assert memory.training(XL, range(28), settings, GPU.model_copy(update={"sharding": "full"})) == one


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
    few, many = (memory.proxies(XL, range(28), Proxies(zico={"batches": n})).total for n in (8, 32))
    assert many > few


def test_the_audit_keeps_the_network_that_sub_networks_are_cut_from_and_their_decoder() -> None:
    vae = KlAutoencoder(kind="kl", hub="stabilityai/sd-vae-ft-ema")
    training = memory.training(XL, range(28), Training(steps=1, batch_size=32), GPU)
    ranked, measured = memory.bench(XL, 32, GPU), memory.bench(XL, 32, GPU, Sampling(), vae)
    assert ranked.fixed == training.fixed + 4 * 675_129_632
    assert measured.fixed == ranked.fixed + memory.autoencoder_weights(vae)
    by_ntk, by_zico = (memory.swept(XL, Proxies(), AuditedProxies(samples=(4, n))) for n in (1024, 64))
    assert (by_ntk.images, by_ntk.setting) == (1024, "audit.proxies.samples")
    assert (by_zico.images, by_zico.setting) == (16, "proxies.zico.batch_size")


# ------------------------------------------------------------------------------------------------- advice, no gate


NEEDED: dict[str, Callable[[], Memory]] = {
    "compute.micro_batch": lambda: memory.training(XL, range(28), Training(steps=1, batch_size=256), GPU),
    "sampling.batch_size": lambda: memory.sampling(XL, range(28), Sampling(batch_size=4000)),
    "scoring.batch_size": lambda: memory.scoring(XL, "taylor", Scoring(), Sampling()),
}


@pytest.mark.parametrize("key", NEEDED)
def test_a_shortage_names_what_would_fit(key: str) -> None:
    needed = NEEDED[key]()
    said = needed.shortage("the arm", 40 * GIB, "cuda")
    assert said is not None
    assert said.startswith("the arm needs about ") and "has 40: set " in said and "\n" not in said
    (fits,) = re.findall(rf"set {re.escape(key)} to (\d+) or less", said)
    assert needed._replace(images=int(fits)).shortage("the arm", 40 * GIB, "cuda") is None
    assert needed._replace(images=int(fits) + 1).shortage("the arm", 40 * GIB, "cuda") is not None


def test_where_not_one_image_fits_a_larger_gpu_is_advised() -> None:
    said = NEEDED["compute.micro_batch"]().shortage("the arm", 8 * GIB, "cuda") or ""
    assert re.search(r"has 8: take a larger GPU, or set compute\.gradient_checkpointing, or more", said)


def test_only_a_stated_gpu_is_refused_and_that_at_the_workflows_start(tmp_path: Path) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("compute: {device: cuda, gpu_memory: 0.5}\n")
    said = snakemake(tmp_path, "-n", "--configfile", str(SMOKE), str(small), succeeds=False)
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert re.match(r"\S+ \S+.* needs about \S+ GiB of GPU memory .*, a GPU of compute.gpu_memory has 0\.5: ", last)
    require_room(study(device="cuda", gpu_memory=None))


def test_the_papers_tables_and_audit_fit_into_the_gpus_that_it_states_and_the_audit_is_asked_too() -> None:
    usual = paper()
    stated, audit = usual.params.compute.gpu_memory, usual.params.audit
    assert stated is not None and stated < 80 and audit is not None  # 80 GB as sold are 79 GiB
    require_room(usual)
    many = audit.model_copy(update={"proxies": audit.proxies.model_copy(update={"samples": (8, 1024)})})
    with pytest.raises(UserError, match=r"^audit_proxies dit .* set audit\.proxies\.samples to \d+ or less"):
        require_room(paper(audit=many))


def test_every_rule_that_computes_on_a_gpu_is_held_against_its_memory() -> None:
    asked = {job.rule for described in (paper(), study()) for job in largest_jobs(described)}
    assert asked >= {name for name, rule in RULES.items() if rule.on_gpu}


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.on_gpu], ids=lambda rule: rule.name)
def test_a_gpu_without_enough_memory_is_one_line(rule: Any) -> None:
    with pytest.raises(UserError) as error, out_of_memory_explained(rule):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8")
    said = str(error.value)
    assert said.startswith(f"{rule.name}: the GPU has too little memory (2.50 GiB more were asked for): lower ")
    assert rule.lower in said and ("is kept" in said) == rule.resumes
    with pytest.raises(RuntimeError, match="another"), out_of_memory_explained(rule):
        raise RuntimeError("another error")


def test_a_stage_that_ranks_again_asks_for_that_too() -> None:
    described = paper()
    usual = next(arm for arm in described.arms.values() if arm.pruning.rerank)
    for criterion, setting in (("ced", "compute.micro_batch"), ("taylor", "scoring.batch_size")):
        described.arms[usual.key] = usual.model_copy(update={"criterion": criterion})
        needed = RULES["prune"].memory(described, Job("prune", arm=usual.key, stage=2))
        assert needed is not None and needed.setting == setting


# --------------------------------------------------------------------------------------------------------------- jobs


@pytest.mark.parametrize("file", [file for file in ROOT.glob("params/*.yaml") if file.name != "reference.yaml"])
def test_every_large_job_of_every_study_can_be_answered(file: Path) -> None:
    described = ResolvedStudy(read_study([file]))
    for job in largest_jobs(described):
        answer = needs(described, job)
        assert answer.mem_mb >= 1000 and answer.runtime >= 15 and answer.threads >= 1, job


def test_resources_grow_with_the_study() -> None:
    job, small = Job("pretrain", backbone="sit"), study()
    more = small.params.pretrain.model_copy(update={"steps": 10**6, "batch_size": 4096})
    large = ResolvedStudy(small.params.model_copy(update={"pretrain": more}))
    one, other = (needs(each, job) for each in (small, large))
    assert one.runtime < 20 and other.runtime == 1440  # no longer than a day: it goes on
    assert other.mem_mb > one.mem_mb


def test_reading_the_largest_checkpoint_asks_for_more_than_it_was_found_to_take_but_not_for_all_of_a_node() -> None:
    """5,842 MB at its peak, of 2.7 GB of weights, alone in the file or with average and optimizer."""
    asked = needs(paper(), Job("import_checkpoint", backbone="dit")).mem_mb
    assert 1.2 * 5842 < asked < 2 * 5842


def test_threads_share_the_time_of_a_data_set() -> None:
    job = Job("data", data="upstream")
    one, eight = (needs(paper(compute=Compute(device="cuda", threads=threads)), job) for threads in (1, 8))
    assert (one.threads, eight.threads) == (1, 8)
    assert eight.runtime < one.runtime / 4


def test_processes_share_the_time_and_ask_for_their_gpus_and_nodes() -> None:
    shared, alone = Job("pretrain", backbone="sit"), Job("cost", backbone="sit", data="upstream")
    four = study(device="cuda", gpus=2, nodes=2, threads=3)
    assert needs(four, shared)[0] == 6  # threads of a node
    assert needs(four, shared)[3:] == (0, "gpu:2", 2, 2, 0, "srun")  # a total SLURM would share unevenly
    assert needs(four, alone)[3:] == (1, None, None, None, None, None)
    assert needs(study(), shared)[3:] == (0, None, None, None, None, None)
    assert needs(study(device="cpu", nodes=2), shared)[3:5] == (0, None)


def test_features_that_one_process_gathers_are_asked_for_once() -> None:
    one, four = (study(device="cuda", gpus=gpus) for gpus in (1, 4))
    job = Job("evaluate", arm=next(iter(one.arms)))
    assert needs(four, job).mem_mb - needs(one, job).mem_mb == 3 * LIBRARIES["cuda"]
    assert needs(one, job).mem_mb > LIBRARIES["cuda"]


def test_another_number_of_gpus_changes_no_settings() -> None:
    job = Job("pretrain", backbone="sit")
    one, other = (study(**more) for more in ({}, {"gpus": 2, "sharding": "full", "gpu_memory": 8}))
    assert RULES["pretrain"].settings(one, job) == RULES["pretrain"].settings(other, job)


def test_a_command_hears_of_several_processes_only_if_it_can_share_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = json.dumps({"compute": {"device": "cpu", "threads": 2}})
    assert with_compute(RULES["sample"], settings) == settings
    monkeypatch.setenv("ENTPRUNER_COMPUTE", json.dumps({"gpus": 2, "compile": True}))
    told = {name: json.loads(with_compute(RULES[name], settings))["compute"] for name in ("sample", "score")}
    assert told["sample"] == {"device": "cpu", "threads": 2, "gpus": 2, "compile": True}
    assert told["score"] == {"device": "cpu", "threads": 2, "compile": True}
    assert with_compute(RULES["data"], '{"dataset": 1}') == '{"dataset": 1}'
