"""Transformers of diffusers as backbones of a study: text as condition, clips as images, and a study's whole way."""

import re
import subprocess
import sys
from copy import deepcopy
from importlib import util
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scoring_context import PROCESSES, context
from small_training import Kill, bits, killed_at, run, untimed
from torch import Tensor

from entpruner.cli import rule
from entpruner.data.digits import ink, moving, prepare_captioned, prepare_moving, slope
from entpruner.data.store import ImageSet, Store, shown
from entpruner.errors import UserError
from entpruner.evaluation.classifier import Classifier
from entpruner.evaluation.cost import parameters
from entpruner.evaluation.extractors import motion
from entpruner.evaluation.sampling import sample_images
from entpruner.models import stock
from entpruner.models.arithmetic import macs_with, parameters_of
from entpruner.models.checkpoints import ModelCard, build, load_model, save_model
from entpruner.models.stock_network import StockTransformer
from entpruner.models.surgery import drop_blocks, replace_label_table
from entpruner.params.arms import IN_PARTS
from entpruner.params.backbones import Diffusion, Flow
from entpruner.params.compute import Compute
from entpruner.params.criteria import CRITERIA
from entpruner.params.datasets import CaptionedDigits, MovingDigits
from entpruner.params.files import check
from entpruner.params.stock import REFUSED, StockArchitecture
from entpruner.params.training import Training
from entpruner.process import make_process
from entpruner.rules import RULES
from entpruner.rules.rule import Job
from entpruner.scores import score
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.files import read_json
from entpruner.system.randomness import generator
from entpruner.training.objective import Objective, data_loss
from entpruner.training.state import TrainState

PIXART = {
    "transformer": "PixArtTransformer2DModel",
    "words": 5,
    "config": {
        "num_layers": 4, "in_channels": 1, "out_channels": 2, "sample_size": 8, "patch_size": 4,
        "num_attention_heads": 2, "attention_head_dim": 8, "cross_attention_dim": 16, "caption_channels": 8,
        "use_additional_conditions": False,
    },
}  # fmt: skip
WAN = {
    "transformer": "WanTransformer3DModel",
    "words": 4,
    "frames": 4,
    "config": {
        "num_layers": 4, "in_channels": 1, "out_channels": 1, "patch_size": [1, 4, 4], "num_attention_heads": 2,
        "attention_head_dim": 12, "text_dim": 8, "freq_dim": 16, "ffn_dim": 32, "rope_max_seq_len": 16,
    },
}  # fmt: skip
NAMES = ("a seven, thin", "a seven, bold", "a one, thin")
KINDS = {"text": (PIXART, 1, Diffusion()), "video": (WAN, 4, Flow())}
kinds = pytest.mark.parametrize("kind", KINDS)


def architecture(kind: str, **changes: Any) -> StockArchitecture:
    shape, channels, _ = KINDS[kind]
    return StockArchitecture(**shape | changes, input_size=8, in_channels=channels, num_classes=3)


def network(kind: str, kept_blocks: tuple[int, ...] | None = None) -> StockTransformer:
    model = build(architecture(kind), kept_blocks).initialize(generator(0)).name_classes(NAMES)
    assert isinstance(model, StockTransformer)
    return model.eval()


def batch(kind: str, count: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(2)
    x = torch.randn(count, KINDS[kind][1], 8, 8, generator=random)
    times = make_process(KINDS[kind][2]).draw_times(count, random)
    return x, times, torch.arange(count) % 4  # the last class is none


def images(kind: str) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (12, KINDS[kind][1], 8, 8), dtype=np.uint8)
    return ImageSet(pixels, np.arange(12, dtype=np.int64) % 3, num_classes=3)


# ------------------------------------------------------------------------------------------------------- the network


@kinds
@torch.no_grad()
def test_a_network_without_a_block_is_the_pruned_one_bit_for_bit(kind: str) -> None:
    model, given = network(kind, (0, 1, 3)), batch(kind)
    for position, output in model.removals(*given):
        pruned = model if position is None else drop_blocks(model, {model.kept_blocks[position]})
        assert torch.equal(output, pruned(*given))
        assert (output - model(*given)).abs().max() > 1e-4 or position is None


@kinds
@torch.no_grad()
def test_what_a_block_hands_on_is_what_the_next_one_is_given(kind: str) -> None:
    model = network(kind)
    visits = [*model.visits(*batch(kind))]
    assert len(visits) == 4 and visits[0][0].shape == ((5, 4, 16) if kind == "text" else (5, 16, 24))
    assert all(left is entering for (_, left), (entering, _) in pairwise(visits))


@kinds
@torch.no_grad()
def test_samples_are_alone_and_time_and_words_matter(kind: str) -> None:
    model, (x, t, y) = network(kind), batch(kind)
    output = model(x, t, y)
    assert output.shape == (5, 2 * x.shape[1], 8, 8)
    torch.testing.assert_close(model(x[1:], t[1:], y[1:]), output[1:], rtol=0, atol=1e-5)
    assert (model(x, t.flip(0), y) - output).abs().max() > 1e-4
    assert (model(x, t, (y + 1) % 4) - output).abs().max() > 1e-4


def test_a_network_for_video_sees_channels_as_frames_and_lacks_variances() -> None:
    model, (x, t, y) = network("video"), batch("video", 2)
    own = model.network(x[:, None], 1000 * t, model.y_embedder(y).view(2, 4, 8), return_dict=False)[0]
    assert torch.equal(model(x, t, y), torch.cat([own[:, 0], torch.zeros_like(own[:, 0])], dim=1))


def test_a_word_has_the_same_vector_in_every_name_and_no_class_has_none() -> None:
    rows = network("text").y_embedder.embedding_table.weight.view(4, 5, 8)
    assert torch.equal(rows[0, :2], rows[1, :2]) and torch.equal(rows[0, 2], rows[2, 2])
    assert not torch.equal(rows[0, 2], rows[1, 2]) and rows[0, :3].abs().min() > 0
    assert not rows[0, 3:].any() and not rows[3].any()
    moved = replace_label_table(network("text"), 1, generator(1)).name_classes(["thin"])
    assert torch.equal(moved.y_embedder.embedding_table.weight.view(2, 5, 8)[0, 0], rows[0, 2])
    with pytest.raises(UserError, match=r"class 'a b c d e f': 6 words; allowed: diffusers.words 5; raise it"):
        network("text").name_classes(["a b c d e f"])


@kinds
def test_weights_follow_from_the_generator_alone(kind: str) -> None:
    state = torch.random.get_rng_state()
    one, other = (build(architecture(kind)).initialize(generator(seed)).state_dict() for seed in (3, 4))
    torch.rand(7)
    again = build(architecture(kind)).initialize(generator(3)).state_dict()
    assert all(torch.equal(one[name], again[name]) for name in one if not name.startswith("y_embedder"))
    assert not torch.equal(one["blocks.0.attn1.to_q.weight"], other["blocks.0.attn1.to_q.weight"])
    torch.random.set_rng_state(state)


@kinds
def test_what_is_counted_is_what_the_network_has(kind: str) -> None:
    whole, pruned = architecture(kind), network(kind, (0, 3))
    assert parameters_of(whole, (0, 3)) == parameters(pruned)
    assert macs_with(whole, range(4)) - macs_with(whole, range(3)) == stock.counts(whole).block.macs


def test_the_products_of_a_block_are_counted_as_by_hand() -> None:
    tokens, d, words = 4, 16, 5
    attention = 4 * tokens * d**2 + 2 * tokens**2 * d
    cross = 2 * tokens * d**2 + 2 * words * d**2 + 2 * tokens * words * d
    assert stock.counts(architecture("text")).block.macs == attention + cross + 2 * tokens * d * 4 * d


@kinds
def test_a_saved_network_is_read_again(kind: str, tmp_path: Path) -> None:
    model = network(kind, (0, 2))
    card = ModelCard(
        architecture=model.architecture, kept_blocks=(0, 2), process=KINDS[kind][2], class_names=NAMES
    )  # fmt: skip
    save_model(tmp_path, model, card)
    found, read = load_model(tmp_path)
    assert read == card and type(read.architecture) is StockArchitecture
    assert torch.equal(found.eval()(*batch(kind)), model(*batch(kind)))


# ------------------------------------------------------------------------------------- scored, trained, pruned, sampled


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: p.kind)
@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - IN_PARTS))
def test_every_criterion_that_needs_no_parts_scores_it(process: Any, criterion: str) -> None:
    scores = score(criterion, context(process, network("text", (0, 1, 3))))
    assert sorted(scores.order) == [0, 1, 3]


@pytest.mark.parametrize("criterion", IN_PARTS)
def test_a_criterion_that_runs_networks_part_by_part_says_so(criterion: str) -> None:
    with pytest.raises(UserError, match="runs a network part by part, not one of diffusers"):
        score(criterion, context(model=network("text")))


SETTINGS = Training(steps=24, batch_size=6, learning_rate=3e-3, log_every=4, checkpoint_every=4)


@kinds
def test_training_lowers_the_loss_and_goes_on_exactly_after_a_kill(kind: str, tmp_path: Path) -> None:
    process = make_process(KINDS[kind][2])

    def trained(folder: str, objective: Objective | None = None, **changes: Any) -> tuple[dict[str, bytes], Any]:
        state = TrainState.start(network(kind)).drop_blocks({1})
        curve = run(state, tmp_path / folder, objective, SETTINGS, process, images=images(kind), **changes)
        return bits(state), untimed(curve)

    whole = trained("whole")
    assert whole[1][-1]["loss"] < whole[1][0]["loss"] and whole[1][-1]["blocks"] == 3
    assert whole[0]["model.y_embedder.embedding_table.weight"] == whole[0]["ema.y_embedder.embedding_table.weight"]
    with pytest.raises(Kill):
        trained("killed", killed_at(13, data_loss(process)))
    assert trained("killed") == whole
    again = trained("checkpointed", compute=Compute(device="cpu", gradient_checkpointing=True))
    assert [point["loss"] for point in again[1]] == pytest.approx([point["loss"] for point in whole[1]], rel=1e-3)


@kinds
def test_a_pruned_network_samples_from_a_copy(kind: str) -> None:
    case = context(KINDS[kind][2])
    sampling = case.sampling.model_copy(update={"samples": 4, "batch_size": 4})
    found = [
        sample_images(model, case.process, sampling, seed=0, device=case.device)[0]
        for model in (network(kind, (0, 2)), deepcopy(network(kind, (0, 2))))
    ]
    assert found[0].shape == (4, KINDS[kind][1], 8, 8) and np.array_equal(*found)


# ------------------------------------------------------------------------------------------------- captions and motion


def test_captions_say_what_was_measured(tmp_path: Path) -> None:
    prepare_captioned(CaptionedDigits(source="captioned_digits", classes=(1, 7)), tmp_path / "store")
    store = Store.open(tmp_path / "store", verify=True)
    assert len(store.class_names) == 12 and "a seven, thin, leaning left" in store.class_names
    train = store.split("train")
    of = {name: np.asarray(train.images[train.labels == label]) for label, name in enumerate(store.class_names)}
    assert all(len(found) >= 10 for found in of.values())
    assert ink(of["a one, thin, upright"]).max() <= ink(of["a one, bold, upright"]).min()
    leans = [slope(of[f"a one, bold, {lean}"]) for lean in ("leaning right", "upright", "leaning left")]
    assert leans[0].max() <= leans[1].min() and leans[1].max() <= leans[2].min()


def test_the_slope_of_a_line_is_its_slope() -> None:
    lines = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    for row in range(8):
        lines[0, 0, row, 7 - row] = lines[1, 0, row, 3] = 255
    assert slope(lines) == pytest.approx([-1, 0])


def test_digits_move_by_a_pixel_a_frame(tmp_path: Path) -> None:
    prepare_moving(MovingDigits(source="moving_digits", classes=(3,)), tmp_path / "store")
    store = Store.open(tmp_path / "store", verify=True)
    assert store.class_names == tuple(f"a three moving {way}" for way in ("right", "left", "up", "down"))
    clip = np.asarray(store.split("train").images[:4])  # one image in all directions
    assert clip.shape == (4, 4, 8, 8) and all(np.array_equal(clip[0, 2], clip[way, 2]) for way in range(4))
    assert np.array_equal(clip[0, 3, :, 1:], clip[0, 2, :, :-1]) and not clip[0, 3, :, 0].any()
    assert np.array_equal(clip[1, 3, :, :-1], clip[1, 2, :, 1:])
    assert np.array_equal(clip[2, 3, :-1], clip[2, 2, 1:]) and np.array_equal(clip[3, 3, 1:], clip[3, 2, :-1])
    assert np.array_equal(shown(clip)[0, 0, :, 8:16], clip[0, 1])


def test_motion_is_what_changes_and_the_classifier_by_frame_does_not_see_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    clips = torch.from_numpy(moving(pixels, 0, 1, 4))
    there, back = motion(clips), motion(clips.flip(1))
    assert there.shape == (2, 48) and not motion(clips[:, :1].expand(-1, 4, -1, -1)).any()
    assert not torch.allclose(there, back)
    net = Classifier(in_channels=1, num_classes=3, width=4, features=8).eval()
    x = clips.float() / 127.5 - 1
    torch.testing.assert_close(net.features(x), net.features(x.flip(1)))
    torch.testing.assert_close(net.features(x)[:1], net.features(x[0][:, None]).mean(0, keepdim=True))


# --------------------------------------------------------------------------------------------- a whole study in small

SMALL = {
    "pretrain": {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "log_every": 2},
    "adapt": {"steps": 0},
    "finetune": {"steps": 4, "batch_size": 8, "learning_rate": 1e-3, "log_every": 1},
    "pruning": {"stages": 2},
    "scoring": {"draws": 16, "ld_pruner_samples": 4},
    "evaluation": {"kid_subsets": 2, "kid_subset_size": 10, "latency_repeats": 5, "latency_batch_size": 2},
    "arms": {
        "full": {"label": "unpruned", "backbone": "net", "data": "upstream"},
        "ced": {
            "label": "CED", "backbone": "net", "data": "upstream",
            "criterion": "ced", "schedule": "linear", "ratio": 0.5,
        },
    },
    "tables": {"table": {"caption": "A toy", "arms": ["full", "ced"], "columns": ["distance", "parameters", "macs"]}},
    "audit": {
        "backbones": ["net"], "data": "upstream", "samples": 20, "masks": 5,
        "regime": {"masks": 3, "candidates": [{"ratio": 0.5, "steps": 2}]},
        "criteria": {name: {"criterion": name} for name in ("ced", "random", "random_median")},
        "stability": {"draws": [8], "repeats": 2},
    },
    "compute": {"device": "cpu", "threads": 1},
}  # fmt: skip


def small_study(kind: str) -> dict[str, Any]:
    shape, _, process = KINDS[kind]
    sampling = {"samples": 24, "batch_size": 24, "diffusion": {"name": "ddim", "steps": 2}}
    study = deepcopy(SMALL) | {
        "study": kind,
        "backbones": {"net": {"process": process.model_dump(), "diffusers": deepcopy(shape)}},
        "datasets": {"upstream": {"source": "captioned_digits", "classes": [1, 7]}},
        "sampling": sampling | {"flow": {"name": "euler", "steps": 2}},
    }
    study["evaluation"]["classifier"] = {"steps": 5}
    if kind == "video":
        study["datasets"]["upstream"] = {"source": "moving_digits", "classes": [1, 7]}
        study["evaluation"]["classifier"]["by_frame"] = True
        study["evaluation"]["extractors"] = {"frames": {"kind": "classifier"}, "motion": {"kind": "motion"}}
        study["tables"]["table"]["columns"] += ["motion"]
    return study


@kinds
@pytest.mark.usefixtures("process_settings")
def test_a_study_goes_its_whole_way(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = ResolvedStudy(check(small_study(kind)))
    study.require_networks()

    def make(name: str, **job: Any) -> None:
        asked = Job(name, **job)
        options = RULES[name].options(study, asked).items()
        given = [word for option, paths in options for word in (f"--{option}", *paths)]
        rule.run([name, "--settings", RULES[name].settings(study, asked).model_dump_json(), *given])

    make("data", data="upstream")
    make("classifier", data="upstream")
    make("pretrain", backbone="net", seed=0)
    make("score", backbone="net", data="upstream", seed=0, scores="ced")
    full, pruned = study.arms
    for stage in (1, 2):
        make("prune", arm=pruned, stage=stage)
    make("cut", arm=pruned)
    make("cost", backbone="net", data="upstream")
    for arm, cuts in ((full, ("",)), (pruned, ("", "cut-"))):
        make("recover", arm=arm)
        for cut in cuts:
            make("sample", arm=arm, cut=cut)
            make("evaluate", arm=arm, cut=cut)
    make("table", table="table")
    metrics = read_json(study.paths.metrics(pruned).path)
    assert metrics["fd_classifier" if kind == "text" else "fd_frames"] > 0
    assert (metrics.get("fd_motion", 0) > 0) == (kind == "video")
    counted = read_json(study.paths.cost("net", "upstream").path)["blocks"]
    assert counted["2"]["macs"] == macs_with(study.network("net", "upstream").architecture, range(2))
    decision = read_json(study.paths.stage(pruned, 2).files["decision"])
    assert decision["removed"] == 2 and len(decision["kept_blocks"]) == 2
    if kind == "text":
        audit = {"backbone": "net", "seed": 0}
        for part in ("audit_regime", "audit_masks", "audit_scores", "audit_choices", "audit_stability"):
            make(part, **audit)
        found = read_json(study.paths.audit("scores", "net", 0).path)
        assert [*found["criteria"]] == ["ced", "random"]
        assert read_json(study.paths.audit("masks", "net", 0).path)["chains"] == []


# ----------------------------------------------------------------------------------------------------------- bad input


def problems(kind: str, *path: str, value: Any) -> str:
    study = small_study(kind)
    section = study
    for key in path[:-1]:
        section = section.setdefault(key, {})
    section[path[-1]] = value
    with pytest.raises(UserError) as error:
        ResolvedStudy(check(study)).require_networks()
    return str(error.value)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_class_that_comes_out_wrong_is_refused_with_the_reason(name: str) -> None:
    said = problems("text", "backbones", "net", "diffusers", "transformer", value=name)
    assert said.count("\n") == 0 and said.endswith(REFUSED[name])


NET, CONFIG = ("backbones", "net", "diffusers"), PIXART["config"]
BAD = {
    "unknown class": (
        "text", (*NET, "transformer"), "PixArtTransformer3DModel",
        r"backbones.net.diffusers: PixArtTransformer3DModel: diffusers [\d.]+ has no network of this name; "
        "did you mean PixArtTransformer2DModel?",
    ),
    "unknown key": (
        "text", (*NET, "config", "heads"), 2, "PixArtTransformer2DModel: refuses its config: .*unexpected.*'heads'",
    ),
    "no count": (
        "text", (*NET, "config"), {"num_layers": 4},
        r'backbones.net.diffusers.config: got {"num_layers": 4}; allowed: a mapping with in_channels, a whole number',
    ),
    "sizes that do not fit": (
        "text", (*NET, "config", "cross_attention_dim"), 24, "cannot take the study's images; a network for video",
    ),
    "dropout": ("text", (*NET, "config", "dropout"), 0.1, "has dropout; allowed: none"),
    "no variances": ("text", (*NET, "config", "out_channels"), 1, "out_channels 1 must be 2 with diffusion"),
    "other channels": ("text", (*NET, "config", "in_channels"), 3, "must be"),
    "frames of images": ("text", (*NET, "frames"), 4, "frames: got 4; allowed: no frames, as upstream has images"),
    "other frames": ("video", (*NET, "frames"), 8, "frames: got 8; allowed: 4, as the clips of upstream have"),
    "clips without frames": ("video", (*NET, "frames"), None, "config.in_channels 1 must be the 4 channels"),
    "image network on clips": (
        "video", (*NET,), PIXART | {"frames": 4, "config": CONFIG | {"out_channels": 1}},
        "cannot take the study's clips of 4 frames",
    ),
    "vote": ("text", ("arms", "ced", "schedule"), "vote", r"got \"vote\"; allowed: one_shot, delayed, linear"),
    "parts": ("text", ("arms", "ced", "criterion"), "learned", r"got \"learned\"; allowed: another criterion"),
    "method": ("text", ("finetune", "method"), "lora", r"finetune.method: got \"lora\"; allowed: full"),
    "distillation": ("text", ("finetune", "distillation"), {}, "finetune.distillation: got .*; allowed: none: net"),
    "watched arm": ("text", ("finetune", "monitor"), {"every": 2}, "finetune.monitor: got .*; allowed: none: net"),
    "motion of images": (
        "text", ("evaluation", "extractors"), {"motion": {"kind": "motion"}},
        'motion.kind: got "motion"; allowed: a net for images',
    ),
    "column": ("text", ("tables", "table", "columns"), ["motion"], "columns: got \"motion\"; allowed: other columns"),
    "latents": (
        "video", ("latents",), {"kind": "tiny", "folder": "x", "factor": 2}, "RGB images, which the autoencoder",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_before_any_job(case: str) -> None:
    kind, path, value, says = BAD[case]
    said = problems(kind, *path, value=value)
    assert any(re.search(says, line) for line in said.splitlines()), said
    assert len(said.splitlines()) == 1 or case in ("other channels", "method"), said


@pytest.mark.parametrize(
    ("name", "config", "says"),
    [
        (
            "SD3Transformer2DModel",
            {"num_layers": 2, "in_channels": 1, "out_channels": 2, "sample_size": 8, "attention_head_dim": 8,
             "num_attention_heads": 2, "joint_attention_dim": 16, "caption_projection_dim": 16},
            "has blocks that differ in their weights",
        ),
        (
            "DiTTransformer2DModel",
            {"num_layers": 2, "in_channels": 1, "out_channels": 2, "num_attention_heads": 2, "attention_head_dim": 8},
            "says no size of its text",
        ),
    ],
)  # fmt: skip
def test_a_class_that_does_more_than_call_alike_blocks_is_refused(name: str, config: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=f"{name}: {says}"):
        stock.counts(architecture("text", transformer=name, config=config))


def test_without_diffusers_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock, "find_spec", lambda name: None if name == "diffusers" else util.find_spec(name))
    with pytest.raises(UserError, match=r"needs the package diffusers; run: pip install entpruner\[diffusers\]"):
        build(architecture("text"))


def test_other_studies_load_neither_pytorch_nor_diffusers_and_record_the_same_settings() -> None:
    program = """
import sys
from entpruner.params.files import read_study, DEFAULT_STUDY
from entpruner.study.resolved import ResolvedStudy
study = ResolvedStudy(read_study([DEFAULT_STUDY]))
study.require_networks()
assert "torch" not in sys.modules and "diffusers" not in sys.modules
print("diffusers" in study.params.model_dump_json(), "by_frame" in study.params.model_dump_json())"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == "False False\n"
