"""A pipeline of diffusers and a file of prompts: scored and pruned by the command line, and loaded without us."""

import contextlib
import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ChromaTransformer2DModel,
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
)
from diffusers.hooks import apply_group_offloading
from huggingface_hub.errors import GatedRepoError
from processes import in_a_fork, in_processes
from safetensors.torch import load_file
from scoring_context import context, network
from test_pipeline_classes import small
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from entpruner.cli import main
from entpruner.errors import UserError
from entpruner.params.compute import Compute
from entpruner.params.pipelines import OwnPipeline, Recovery
from entpruner.pipelines import pruning, recovery
from entpruner.pipelines.blocks import REFUSED, require_known
from entpruner.pipelines.capture import Captured, CapturedContext, captured, embedded, spread
from entpruner.pipelines.loading import folder_of
from entpruner.pipelines.needs import needed
from entpruner.pipelines.recovery import recover
from entpruner.pipelines.replay import Call, Denoiser
from entpruner.pipelines.surgery import fixed
from entpruner.scores import Scores, score
from entpruner.scores.context import GROUPS

DEPTH = 6
SIZES: dict[str, Any] = {"num_layers": DEPTH, "num_attention_heads": 2, "attention_head_dim": 8, "sample_size": 8}
SIZES |= {"out_channels": 8, "norm_num_groups": 4, "num_embeds_ada_norm": 1000}
PARAMS = """
scoring: {draws: 8}
pipeline: {steps: 4, kept: 2}
recovery: {steps: 0, calls: 12}
compute: {device: cpu}
"""
pytestmark = pytest.mark.usefixtures("process_settings")


def dit(shared: bool = True, **sizes: Any) -> DiTTransformer2DModel:
    """Random weights, so that no block is the identity. Blocks have equal embedders, as in converted checkpoints."""
    random = torch.Generator().manual_seed(0)
    model = DiTTransformer2DModel(**(SIZES | sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=random))
        embedder = model.transformer_blocks[0].norm1.emb.state_dict()
        for block in model.transformer_blocks if shared else ():
            block.norm1.emb.load_state_dict(embedder)
    return model


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline (dit/), classes to show it (classes.txt), my.yaml; and pruned/, made of these."""
    folder = tmp_path_factory.mktemp("own")
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=4, latent_channels=4)
    DiTPipeline(dit(), vae, DDIMScheduler()).save_pretrained(folder / "dit")
    (folder / "classes.txt").write_text("1\n\n5\n3\n")
    (folder / "my.yaml").write_text(PARAMS)
    assert entpruner(folder, "prune", "dit", "classes.txt", "--ratio", "0.34", "--out", "pruned") == 0
    return folder


def entpruner(folder: Path, command: str, *arguments: str) -> int:
    """In the folder, with its settings."""
    with contextlib.chdir(folder):
        return main([command, *arguments, "--params", "my.yaml"])


def refused(capsys: pytest.CaptureFixture[str]) -> str:
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("entpruner: ")
    return line.removeprefix("entpruner: ")


def calls(count: int = 6) -> list[Captured]:
    random = torch.Generator().manual_seed(1)
    found = []
    for number in range(count):
        t, y = torch.tensor([900 - 100 * number] * 2), torch.tensor([number, 1000])
        call = Call((torch.randn(2, 4, 8, 8, generator=random),), {"timestep": t, "class_labels": y})
        found.append(Captured(call, Denoiser(dit())(call).detach(), number // 2, (number % 2) / 2))
    return found


def scoring(model: nn.Module, seen: list[Captured]) -> CapturedContext:
    settings = OwnPipeline().scoring.model_copy(update={"draws": len(seen), "bins": 2})
    return CapturedContext(
        model=Denoiser(model), calls=seen, settings=settings, seed=0, artefact="scores", device=torch.device("cpu")
    )


# --------------------------------------------------------------------------------------------------------------- score


def test_ced_is_the_change_in_entropy_of_the_predictions_without_variances() -> None:
    seen, model = calls(), dit()
    scores = score("ced", scoring(model, seen))
    subject = Denoiser(model)

    def entropy(*gone: int) -> float:
        outputs = [subject.without(c.call, *gone) if gone else c.output for c in seen]
        variance = torch.stack(outputs)[:, :, :4].double().var(correction=0)
        return 0.5 * math.log(2 * math.pi * math.e * variance.item())

    assert scores.blocks == tuple(range(DEPTH))
    assert scores.signed == pytest.approx([entropy(block) - entropy() for block in range(DEPTH)], abs=1e-6)
    assert scores.per_timestep is not None and None not in scores.per_timestep[0]
    assert scoring(model, seen).groups == 2 < GROUPS and min(scores.stderr) > 0  # the jackknife leaves out samplings


@pytest.mark.parametrize("name", ["sensitivity", "block_influence", "similarity_mse", "magnitude", "random", "first"])
def test_the_other_criteria_see_every_block(name: str) -> None:
    assert len(set(score(name, scoring(dit(), calls(2))).value)) == DEPTH


def test_sensitivity_is_the_distance_to_the_whole_network() -> None:
    seen, model = calls(2), dit()
    subject = Denoiser(model)
    for block, value in enumerate(score("sensitivity", scoring(model, seen)).value):
        apart = [(subject.without(c.call, block) - c.output)[:, :4].square().mean().item() for c in seen]
        assert value == pytest.approx(sum(apart) / 2, rel=1e-4)


def test_taylor_finds_the_block_that_does_nothing_though_the_distance_has_no_slope() -> None:
    model = dit()
    with torch.no_grad():
        for layer in (model.transformer_blocks[3].attn1.to_out[0], model.transformer_blocks[3].ff.net[2]):
            layer.weight.zero_()
            layer.bias.zero_()
    scores = score("taylor", scoring(model, calls(2)))
    assert scores.value[3] == 0 < sorted(scores.value)[1]


def test_the_one_interface_gives_our_dit_the_same_bits() -> None:
    class Traced(Denoiser):
        """Our network as diffusers' are seen: by watching it."""

        def removals(self, *inputs: Tensor) -> Iterator[tuple[int | None, Tensor]]:
            return super().removals(Call(inputs, {}))

        def visits(self, *inputs: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            return super().visits(Call(inputs, {}))

    ours = network()
    watched = Traced(ours, [(f"blocks.{i}",) for i in range(4)])
    for estimator in ("scalar", "diagonal"):
        assert score("ced", context(model=ours, estimator=estimator)) == score(
            "ced", context(model=watched, estimator=estimator)
        )


def test_ced_of_28_blocks_runs_half_of_the_blocks_that_plain_skipping_would() -> None:
    model, ran = dit(num_layers=28), []
    for block in model.transformer_blocks:
        block.norm1.register_forward_hook(lambda *_: ran.append(1))
    list(Denoiser(model).removals(calls(1)[0].call))
    assert len(ran) / (29 * 28) <= 0.57


@pytest.mark.skipif(find_spec("accelerate") is None, reason="needs accelerate: pip install entpruner[diffusers]")
def test_blocks_that_are_offloaded_in_groups_are_replayed_equally() -> None:
    call, model = calls(1)[0].call, dit()
    plain = [output for _, output in Denoiser(model).removals(call)]
    apply_group_offloading(model, torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    for _ in range(2):  # the hooks are still there after the first
        assert all(torch.equal(a, b) for a, (_, b) in zip(plain, Denoiser(model).removals(call), strict=True))


def test_score_writes_scores_of_draws_that_are_the_same_each_time(own: Path) -> None:
    """And in ``prune``."""
    assert entpruner(own, "score", "dit", "classes.txt", "--ratio", "0.34", "--out", "a.json") == 0
    assert (own / "a.json").read_bytes() == (own / "pruned/scores.json").read_bytes()
    assert Scores.from_json(json.loads((own / "a.json").read_text())).draws == 8


def test_the_calls_that_are_kept_are_spread_over_the_times_however_many_they_are() -> None:
    for samplings in (5, 16, 40):
        met = [spread(20, 4, sampling) for sampling in range(samplings)]
        assert all(len(set(numbers)) == 4 and min(numbers) >= 0 and max(numbers) < 20 for numbers in met)
        counted = Counter(number for numbers in met for number in numbers)
        assert max(counted.values()) - min(counted[number] for number in range(20)) <= 2
    assert spread(3, 4, 1) == [0, 1, 2]


# --------------------------------------------------------------------------------------------------------------- prune


def test_the_pruned_pipeline_runs_where_this_package_is_not(own: Path, tmp_path: Path) -> None:
    final = own / "pruned/final"
    record = json.loads((final / "entpruner.json").read_text())
    assert (record["blocks_before"], record["blocks_after"]) == (DEPTH, 4)
    gone = [int(name.rpartition(".")[2]) for [name] in record["blocks_removed"]]
    order = Scores.from_json(json.loads((own / "pruned/scores.json").read_text())).order
    assert gone == sorted(order[:2])
    assert f"{record['parameters_after']:,}" in (final / "README.md").read_text()
    assert (final / "compare.png").exists()

    script = """if True:
        import sys
        sys.modules["entpruner"] = None  # importing it fails from here on
        import torch
        from diffusers import DiffusionPipeline
        pipeline = DiffusionPipeline.from_pretrained(sys.argv[1])
        pipeline.set_progress_bar_config(disable=True)
        random = torch.Generator().manual_seed(0)
        images = pipeline([1], num_inference_steps=2, generator=random, output_type="np").images
        torch.save(torch.from_numpy(images), sys.argv[2])
    """
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, final, tmp_path / "images.pt"], check=True, cwd=tmp_path
    )
    pipeline = DiTPipeline.from_pretrained(own / "dit")
    pipeline.set_progress_bar_config(disable=True)
    blocks = pipeline.transformer.transformer_blocks
    pipeline.transformer.transformer_blocks = nn.ModuleList(b for i, b in enumerate(blocks) if i not in gone)
    random = torch.Generator().manual_seed(0)
    expected = torch.from_numpy(pipeline([1], num_inference_steps=2, generator=random, output_type="np").images)
    torch.testing.assert_close(torch.load(tmp_path / "images.pt", weights_only=True), expected, rtol=1e-4, atol=1e-5)


def test_a_pruning_that_is_done_is_not_done_again_and_another_is_refused(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (own / "pruned/final/entpruner.json").stat().st_mtime_ns
    assert entpruner(own, "prune", "dit", "classes.txt", "--ratio", "0.34", "--out", "pruned") == 0
    assert (own / "pruned/final/entpruner.json").stat().st_mtime_ns == before
    assert entpruner(own, "prune", "dit", "classes.txt", "--ratio", "0.5", "--out", "pruned") == 1
    assert "holds a pruning with another ratio" in refused(capsys)


def test_by_parameters_as_many_go_as_come_nearest() -> None:
    name = "FluxTransformer2DModel"
    model, _ = small(name)
    subject = Denoiser(model)
    sizes = [sum(weight.numel() for weight in block.parameters()) for block in subject.blocks]
    total = sum(weight.numel() for weight in model.parameters())
    values = Scores.from_json(score("random", scoring(dit(), calls(1))).to_json())  # of six blocks too
    drop = pruning.chosen(subject, values, 0.3, "parameters")
    assert abs(sum(sizes[block] for block in drop) / total - 0.3) <= min(sizes) / total
    for ratio in (0.001, 0.99):
        with pytest.raises(UserError, match=f"ratio {ratio} asks for"):
            pruning.chosen(subject, values, ratio, "blocks")


def test_block_0_of_dit_stays_once_the_embedders_differ() -> None:
    assert fixed(dit()) == set() and fixed(dit(shared=False)) == {0}
    values = score("first", scoring(dit(), calls(1)))
    assert pruning.chosen(Denoiser(dit()), values, 0.34, "blocks") == (0, 1)
    assert pruning.chosen(Denoiser(dit(shared=False)), values, 0.34, "blocks") == (1, 2)


# --------------------------------------------------------------------------------------------------------------- guard


@pytest.mark.parametrize("name", [*REFUSED, "UNet2DConditionModel"])
def test_classes_that_come_out_wrong_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} cannot be pruned: ..."):
        require_known(type(name, (nn.Module,), {})())


def test_the_guard_finds_a_class_that_loads_silently_and_is_wrong(tmp_path: Path) -> None:
    sizes = {"num_layers": 3, "num_single_layers": 3, "num_attention_heads": 2, "attention_head_dim": 16}
    sizes |= {"in_channels": 4, "joint_attention_dim": 12, "approximator_num_channels": 8, "approximator_layers": 1}
    torch.manual_seed(0)
    model = ChromaTransformer2DModel(**sizes, approximator_hidden_dim=16, axes_dims_rope=(4, 4, 8)).eval()
    inputs = {"encoder_hidden_states": torch.randn(1, 5, 12), "timestep": torch.tensor([0.5])}
    inputs |= {"img_ids": torch.zeros(9, 3), "txt_ids": torch.zeros(5, 3)}
    call = Call((torch.randn(1, 9, 4),), inputs)
    (tmp_path / "source").mkdir()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"ChromaTransformer2DModel cannot be pruned so: "):
        pruning.cut(Denoiser(model), (1,), call, tmp_path / "source", tmp_path / "out")


def test_blocks_are_counted_where_the_class_s_default_is_the_count() -> None:
    with torch.device("meta"):
        model = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8)
    subject = Denoiser(model)
    assert len(subject.units) == 28
    pruning.remove(model, [subject.units[3]])
    assert model.config.num_layers == len(model.transformer_blocks) == 27


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("score", "dit", "nowhere.txt", "--out", "x"), "nowhere.txt: cannot be read (No such file or directory)"),
        (("score", "dit", "empty.txt", "--out", "x"), "empty.txt: no prompt in it; give a text file"),
        (("score", "dit", "picture.txt", "--out", "x"), "picture.txt: not a text file in UTF-8"),
        (("score", "dit", "words.txt", "--out", "x"), "cat: a class that the pipeline has no name for; give a number"),
        (("score", "dit", "classes.txt", "--out", "x", "--criterion", "learned"), "learned needs images, and a"),
        (("score", "dit", "classes.txt", "--out", "x", "--criterion", "every_other"), "give the ratio of blocks to"),
        (
            ("score", "dit", "classes.txt", "--out", "x", "--process", "flow"),
            "--process is for DiT and SiT, and dit",
        ),
        (
            ("score", "dit/transformer", "classes.txt", "--out", "x"),
            "dit/transformer: a transformer without its",
        ),
        (("score", "two", "classes.txt", "--out", "x"), "two: a pipeline with 2 transformers, each for its own part"),
        (("score", "unet", "classes.txt", "--out", "x"), "unet: a pipeline without a transformer (unet)"),
        (("score", "stale", "classes.txt", "--out", "x"), "stale: diffusers cannot load it ("),
        (
            ("score", "nobody/nothing", "classes.txt", "--out", "x"),
            "nobody/nothing: no such folder, and the hub",
        ),
        (("prune", "dit", "classes.txt", "--out", "x", "--ratio", "0.01"), "ratio 0.01 asks for 0 blocks of 6"),
    ],
)
def test_bad_input_is_one_line(
    own: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    says: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (own / "empty.txt").write_text("\n \n")
    (own / "picture.txt").write_bytes(b"\x89PNG\xff")
    (own / "words.txt").write_text("cat\n")
    parts = {"two": ["transformer", "transformer_2"], "unet": ["unet"], "stale": ["transformer"]}
    for name, names in parts.items():
        (own / name).mkdir(exist_ok=True)
        index = {"_class_name": "DiTPipeline"} | {part: ["diffusers", "DiTTransformer2DModel"] for part in names}
        (own / name / "model_index.json").write_text(json.dumps(index))
    stale = own / "stale/transformer"
    stale.mkdir(exist_ok=True)
    (stale / "config.json").write_bytes((own / "dit/transformer/config.json").read_bytes())
    index = {"weight_map": {"proj_out_2.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (stale / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index | {"metadata": {}}))
    assert entpruner(own, *arguments) == 1
    assert says in refused(capsys)
    assert not (own / "x/final").exists() and not (own / "x").is_file()


class GatedError(GatedRepoError):
    def __init__(self) -> None:
        """Without the answer of a server."""


def test_a_model_behind_a_login_is_refused_with_the_way_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise GatedError

    monkeypatch.setattr(DiffusionPipeline, "download", download)
    with pytest.raises(UserError, match=r"some/model: its owners ask for a login; .* hf auth login"):
        folder_of(Path("some/model"))


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers: pip install entpruner[diffusers]")
def test_a_prompt_of_ten_thousand_words_is_cut_off_by_its_pipeline() -> None:
    from small_pipelines import small_pipeline

    pipeline, arguments = small_pipeline("FluxPipeline")
    arguments["prompt"] = "cat " * 10_000
    with embedded(pipeline, [arguments]):
        (seen,) = captured(pipeline, [arguments], 1, 1, seed=0)
    assert seen.call.kwargs["encoder_hidden_states"].shape[1] == 8


def test_ten_thousand_prompts_are_as_good_as_those_that_are_drawn(own: Path) -> None:
    (own / "many.txt").write_text("1\n" * 10_000)
    assert entpruner(own, "score", "dit", "many.txt", "--out", "many.json") == 0


def test_a_disk_without_room_is_told_before_anything_is_read(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Disk", (), {"free": 1000})())
    assert entpruner(own, "prune", "dit", "classes.txt", "--ratio", "0.5", "--out", "full") == 1
    assert refused(capsys).startswith("the pruned pipeline: needs 0.00 GB, ")


def test_without_the_optional_packages_one_line_says_what_to_install(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("loading", "pruning"):
        monkeypatch.setattr(f"entpruner.pipelines.{module}.find_spec", lambda _: None)
    assert entpruner(own, "prune", "dit", "classes.txt", "--ratio", "0.5", "--steps", "1", "--out", "y") == 1
    assert "pip install entpruner[diffusers], or take --recover full" in refused(capsys)


def test_the_first_screen_imports_no_network_library() -> None:
    script = "import sys; from entpruner.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "print({'torch', 'diffusers', 'transformers', 'peft', 'accelerate'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "set()"


# ------------------------------------------------------------------------------------------------------------ recovery

METHODS = [
    pytest.param(
        "lora", marks=pytest.mark.skipif(find_spec("peft") is None, reason="needs peft: entpruner[diffusers]")
    ),
    "full",
]
GONE = (1, 4, 5)


def recovered(
    model: DiTTransformer2DModel, method: Any, state: Path, gone: tuple[int, ...] = GONE, **compute: Any
) -> tuple[Denoiser, list[float]]:
    subject = Denoiser(model)
    typed = [tree_map(lambda x: x.to(model.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, c)
             for c in calls(2)]  # fmt: skip
    how = Recovery(method=method, steps=8, rank=4, batch_size=2, learning_rate=1e-2, checkpoint_every=3)
    settings = OwnPipeline(recovery=how, compute=Compute(device="cpu", **compute))
    return subject, recover(subject, gone, typed, scoring(model, typed).prediction, settings, state)


def equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("gone", [GONE, (0, 3)])
def test_recovery_lowers_the_loss_and_leaves_plain_weights_that_compute_what_was_trained(
    tmp_path: Path, method: str, gone: tuple[int, ...]
) -> None:
    """Also without block 0, whose embedder DiT's head uses: the others' copies stay as it is."""
    names = dit().state_dict().keys()
    subject, losses = recovered(dit(), method, tmp_path / "state", gone)
    assert losses[-1] < 0.8 * losses[0]
    assert subject.network.state_dict().keys() == names
    assert all(weight.requires_grad for weight in subject.network.parameters())
    call = calls(1)[0].call
    skipped = subject.without(call, *gone)
    pruning.remove(subject.network, [subject.units[block] for block in gone])
    apart = (Denoiser(subject.network)(call) - skipped).abs().max() / skipped.abs().max()
    assert apart <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_recovery_that_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """And one that was finished is there again, until the pruned pipeline is written."""
    whole, losses = recovered(dit(), method, tmp_path / "whole")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    rate = recovery.rate
    monkeypatch.setattr(recovery, "rate", lambda step, how: killed() if step == 5 else rate(step, how))
    with pytest.raises(KeyboardInterrupt):
        recovered(dit(), method, tmp_path / "state")
    monkeypatch.setattr(recovery, "rate", rate)
    for folder in ("state", "whole"):
        again, resumed = recovered(dit(), method, tmp_path / folder)
        assert resumed == losses and equal(whole.network, again.network)


@pytest.mark.parametrize("method", METHODS)
def test_checkpointed_blocks_learn_the_same(tmp_path: Path, method: str) -> None:
    """Nothing is drawn at random in it, as DiT does in training for its labels."""
    subject, losses = recovered(dit(), method, tmp_path / "a")
    again, other = recovered(dit(), method, tmp_path / "b", gradient_checkpointing=True)
    assert other == pytest.approx(losses, rel=1e-5) and not again.network.is_gradient_checkpointing
    for one, two in zip(subject.network.parameters(), again.network.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_all_weights_learn_in_bfloat16_and_keep_their_types(tmp_path: Path) -> None:
    stored = [parameter.dtype for parameter in dit().bfloat16().parameters()]
    subject, losses = recovered(dit().bfloat16(), "full", tmp_path / "a")
    assert losses[-1] < 0.8 * losses[0] and losses != recovered(dit(), "full", tmp_path / "b")[1]
    assert [parameter.dtype for parameter in subject.network.parameters()] == stored


def test_processes_share_a_recovery_of_all_weights_and_any_number_of_them_goes_on(tmp_path: Path) -> None:
    """Each of two holds a part of every weight, and what they learn is what one process learns, to rounding."""
    whole, losses = recovered(dit(), "full", tmp_path / "whole")

    def share(state: Path, processes: int = 2) -> None:
        subject, found = recovered(dit(), "full", state, sharding="full", gpus=processes)
        assert found == pytest.approx(losses, rel=1e-4)
        for weight, wanted in zip(subject.network.parameters(), whole.network.parameters(), strict=True):
            torch.testing.assert_close(weight, wanted, rtol=1e-3, atol=1e-4)

    def broken_off(state: Path, processes: int = 2) -> None:
        with pytest.MonkeyPatch.context() as patch:
            rate = recovery.rate
            patch.setattr(recovery, "rate", lambda step, how: 1 / 0 if step == 5 else rate(step, how))
            with pytest.raises(ZeroDivisionError):
                share(state, processes)

    in_processes(2, lambda: share(tmp_path / "shared"))
    in_processes(2, lambda: broken_off(tmp_path / "two, then one"))
    share(tmp_path / "two, then one", processes=1)
    broken_off(tmp_path / "one, then two", processes=1)
    in_processes(2, lambda: share(tmp_path / "one, then two"))


@pytest.mark.parametrize("compute", ["gpus: 2", "gpus: 2, sharding: full", "gpus: 3, sharding: full"])
def test_processes_can_share_no_other_recovery(own: Path, capsys: pytest.CaptureFixture[str], compute: str) -> None:
    (own / "several.yaml").write_text(f"compute: {{device: cpu, {compute}}}\nrecovery: {{batch_size: 4}}\n")
    method = "full" if "3" in compute else "lora"
    options = ["--ratio", "0.5", "--out", "several", "--recover", method, "--params", "several.yaml"]
    with contextlib.chdir(own):
        assert main(["prune", "dit", "classes.txt", *options]) == 1
    said = refused(capsys)
    assert ("batch_size that 3 processes can divide, not 4" if "3" in compute else "sharding full") in said


def test_a_pruning_in_two_processes_ends_as_one_in_one(own: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (own / "several.yaml").write_text(PARAMS.replace("device: cpu", "device: cpu, gpus: 2, sharding: full"))
    options = ("dit", "classes.txt", "--ratio", "0.34", "--steps", "2", "--recover", "full", "--params")
    for name, count in (("my", "in one"), ("several", "in two")):
        command = ["prune", *options, f"{name}.yaml", "--out", count]
        with contextlib.chdir(own):
            assert in_a_fork(lambda command=command: sys.exit(main(command))) == 0
        assert capfd.readouterr().out.count("see README.md in it") == 1
    weights = "final/transformer/diffusion_pytorch_model.safetensors"
    one, two = (load_file(own / count / weights) for count in ("in one", "in two"))
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert (own / "in one/scores.json").read_bytes() == (own / "in two/scores.json").read_bytes()
    assert {path.name for path in (own / "in two").iterdir()} == {"asked.json", "scores.json", "final"}


def test_a_pruning_is_foretold_and_leaves_no_state_of_its_training(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ("--ratio", "0.34", "--steps", "1", "--recover", "full", "--out", "foretold")
    with caplog.at_level("INFO"):
        assert entpruner(own, "prune", "dit", "classes.txt", *options) == 0
    assert re.search(r"scoring \S+ h, recovery \S+ h, done about ", caplog.text)
    assert re.search(r"memory: \S+ GB to score, \S+ GB .* to recover; disk: \S+ GB meanwhile", caplog.text)
    assert {path.name for path in (own / "foretold").iterdir()} == {"asked.json", "scores.json", "final"}
    scores = [(own / name / "scores.json").read_bytes() for name in ("foretold", "pruned")]
    assert scores[0] == scores[1]  # though more calls were captured, to learn from
    assert "1 steps of distillation into all weights" in (own / "foretold/final/README.md").read_text()


def test_what_a_pruning_needs_is_counted() -> None:
    model = dit()
    count = sum(weight.numel() for weight in model.parameters())
    blocks = sum(weight.numel() for weight in model.transformer_blocks.parameters())
    how = OwnPipeline(recovery=Recovery(method="full", steps=10, batch_size=2))
    found = needed(Denoiser(model), calls(1)[0].call, 3.0, 0.5, how)
    position = 16 * 16 * 4  # 16 tokens of width 16 in a table that is no weight
    states = DEPTH * 2 * 16 * 16 * 4  # of two samples
    assert found.memory == 4 * count + position + states
    assert found.training == found.memory + 16 * (count - blocks // 2) and found.state == 24 * (count - blocks // 2)
    assert (found.scoring, found.recovery) == (64 * 7 / 2 * 3, 20 * (1 + 0.5 * 3) * 3)
    two = how.model_copy(update={"compute": Compute(gpus=2, sharding="full")})
    shared = needed(Denoiser(model), calls(1)[0].call, 3.0, 0.5, two)
    assert shared.training - shared.memory == 8 * (count - blocks // 2) and shared.recovery == found.recovery / 2
    assert needed(Denoiser(model), calls(1)[0].call, 3.0, 0.5, OwnPipeline(recovery=Recovery(steps=0))).state == 0


# ------------------------------------------------------------------------------------------------------ stock pipelines

ELSEWHERE = """if True:
    import sys, torch, diffusers
    from pathlib import Path
    sys.modules["entpruner"] = None  # importing it fails from here on
    found = {}
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folder / "pruned")
        assert type(pipeline) is getattr(diffusers, folder.name)
        pipeline.set_progress_bar_config(disable=True)
        arguments = torch.load(folder / "arguments.pt", weights_only=True)
        made = pipeline(**arguments, generator=torch.Generator().manual_seed(1))[0]
        found[folder.name] = torch.as_tensor(made)
    torch.save(found, sys.argv[2])
"""


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers: pip install entpruner[diffusers]")
def test_stock_pipelines_load_what_is_left_and_make_with_it_what_the_network_in_memory_makes(tmp_path: Path) -> None:
    from small_pipelines import PIPELINES, small_pipeline

    expected: dict[str, Tensor] = {}
    for name in PIPELINES:
        source, folder = tmp_path / "sources" / name, tmp_path / "left" / name
        (folder / "pruned").mkdir(parents=True)
        made, arguments = small_pipeline(name)
        made.save_pretrained(source)
        pipeline = DiffusionPipeline.from_pretrained(source)
        pipeline.set_progress_bar_config(disable=True)
        with embedded(pipeline, [arguments]):
            (seen,) = captured(pipeline, [arguments], 1, 1, seed=0)
            assert getattr(pipeline, "text_encoder", None) is None
            subject = Denoiser(pipeline.transformer)
            drop = (1, len(subject.units) - 1)  # the last one, too
            pruning.cut(subject, drop, seen.call, source, folder / "pruned")
            images = pipeline(**arguments, generator=torch.Generator().manual_seed(1))[0]
        expected[name] = torch.as_tensor(images)
        torch.save(arguments, folder / "arguments.pt")
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE, tmp_path / "left", tmp_path / "found.pt"]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    assert found.keys() == expected.keys() and len(found) >= 14
    apart = {
        name: float((made - expected[name]).abs().max() / expected[name].abs().max()) for name, made in found.items()
    }
    assert {name: by for name, by in apart.items() if not by <= 1e-4} == {}
