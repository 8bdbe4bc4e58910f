"""Params files: what is refused and how it is said, overlays, the resolved study, the schema."""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from entpruner.errors import UserError
from entpruner.params.arms import Criterion
from entpruner.params.backbones import UNetShape
from entpruner.params.base import merge
from entpruner.params.files import check, read_study, schema, show
from entpruner.params.pruning import Pruning, blocks_to_remove
from entpruner.params.scoring import Scoring
from entpruner.params.study import Study

SCHEMA_FILE = Path(__file__).parents[1] / "params" / "schema.json"

STUDY: dict[str, Any] = {
    "study": "tiny",
    "datasets": {
        "upstream": {"source": "digits", "classes": [0, 1]},
        "downstream": {"source": "digits", "classes": [2, 3]},
    },
    "backbones": {
        "dit": {"process": {"kind": "diffusion"}, "depth": 6, "hidden_size": 32, "num_heads": 2, "patch_size": 2},
        "sit": {"process": {"kind": "flow"}, "preset": "SiT-S/2"},
        "unet": {"process": {"kind": "flow"}, "unet": {"blocks_per_level": 1}},
    },
    "pretrain": {"steps": 20},
    "adapt": {"steps": 20},
    "finetune": {"steps": 20},
    "pruning": {"stages": 3},
    "arms": {
        "full": {"label": "full", "backbone": ["dit", "sit"], "data": "downstream"},
        "ours": {
            "label": "EntPruner",
            "backbone": "dit",
            "data": "downstream",
            "schedule": "vote",
            "criterion": "ced",
            "ratio": [0.5],
            "override": {"scoring": {"estimator": "diagonal"}},
        },
    },
    "tables": {"table1": {"caption": "downstream", "arms": ["full", "ours"]}},
    "figures": {
        "figure2": {"kind": "entropy_vs_loss", "caption": "removal", "data": "upstream", "backbones": ["dit"]},
        "figure8": {"kind": "curves", "caption": "curves", "arms": ["ours"]},
    },
}


def nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def with_value(path: str, value: Any) -> dict[str, Any]:
    return merge(copy.deepcopy(STUDY), nested(path, value))


def write(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def complaints(config: dict[str, Any]) -> list[str]:
    with pytest.raises(UserError) as caught:
        check(config)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("pruning.stagse", 4, f"got an unknown key; allowed: the keys {', '.join(Pruning.model_fields)}; "
         "did you mean 'stages'?"),
        ("backbones.sit.process.interpolent", "gvp", "got an unknown key; allowed: the keys kind, interpolant; "
         "did you mean 'interpolant'?"),
        ("finetune.batch_size", "many", 'got "many"; allowed: a whole number above 0'),
        ("finetune.batch_size", "64", 'got "64"; allowed: a whole number above 0'),
        ("finetune.batch_size", 6.5, "got 6.5; allowed: a whole number above 0"),
        ("finetune.steps", True, "got true; allowed: a whole number at least 0"),
        ("finetune.horizontal_flip", 1, "got 1; allowed: true or false"),
        ("finetune.learning_rate", "1e-4", 'got "1e-4"; allowed: a number above 0; YAML takes this for text: '
         "write it out, or with a dot and a sign as in 1.0e-4"),
        ("finetune.learning_rate", float("inf"), "got Infinity; allowed: a number above 0"),
        ("finetune.warmup_steps", 21, "got 21; allowed: at most steps, which is 20"),
        ("arms.ours.ratio", 0, "got 0; allowed: a number above 0 and below 1, or a list"),
        ("arms.ours.ratio", 1, "got 1; allowed: a number above 0 and below 1, or a list"),
        ("arms.ours.ratio", 1.2, "got 1.2; allowed: a number above 0 and below 1, or a list"),
        ("arms.ours.ratio", 0.05, "got 0.05; allowed: a ratio that removes 1 to 5 of the 6 blocks of dit, not 0"),
        ("arms.ours.ratio", 0.95, "got 0.95; allowed: a ratio that removes 1 to 5 of the 6 blocks of dit, not 6"),
        ("arms.ours.criterion", "cde", f'got "cde"; allowed: {", ".join(get_args(Criterion))}; did you mean \'ced\'?'),
        ("arms.ours.backbone", "dot", 'got "dot"; allowed: a name from backbones (dit, sit, unet); '
         "did you mean 'dit'?"),
        ("arms.ours.data", "downstraem", 'got "downstraem"; allowed: a name from datasets (upstream, downstream); '
         "did you mean 'downstream'?"),
        ("arms.ours.override.scoring.draw", 5, "got an unknown key; allowed: the keys "
         f"{', '.join(Scoring.model_fields)}; did you mean 'draws'?"),
        ("arms.ours.override.pruning.stages", "two", 'got "two"; allowed: a whole number above 0'),
        ("arms.ours.override.finetune.warmup_steps", 50, "got 50; allowed: at most steps, which is 20"),
        ("tables.table1.arms", ["ours", "fulll"], 'got "fulll"; allowed: a name from arms (full, ours); '
         "did you mean 'full'?"),
        ("figures.figure8.arms", ["our"], 'got "our"; allowed: a name from arms (full, ours); '
         "did you mean 'ours'?"),
        ("figures.figure2.data", "x", 'got "x"; allowed: a name from datasets (upstream, downstream)'),
        ("pruning.stages", 4, "got 4; allowed: no more stages than removable blocks: arm ours removes 3 of 6 (dit)"),
        ("arms.ours.override.pruning.stages", 4, "got 4; allowed: no more stages than removable blocks: "
         "arm ours removes 3 of 6 (dit)"),
        ("datasets.upstream.classes", [], "got []; allowed: at least 1 entry"),
        ("datasets.upstream.classes", [1, 1], "got [1, 1]; allowed: a list without repeats"),
        ("datasets.upstream.source", "digit", 'got "digit"; allowed: digits, image_folder, imagenet, '
         "cub, flowers, artbench; did you mean 'digits'?"),
        ("sampling.diffusion.steps", 2000, "got 2000; allowed: at most the 1000 timesteps of backbone dit"),
        ("seeds", [0, 0], "got [0, 0]; allowed: a list without repeats"),
        ("backbones.unet.unet.channels", 12, "got 12; allowed: a whole number above 0 and a multiple of 8"),
        ("backbones.unet.unet.levels", 3, f"got an unknown key; allowed: the keys {', '.join(UNetShape.model_fields)}"),
        ("arms.full.backbone", ["dit", "unet"], 'got "unet"; allowed: a transformer: U-Nets are audited only, as '
         "proxies, cost and methods know transformers alone"),
    ],
)  # fmt: skip
def test_one_line_says_where_what_was_given_and_what_is_allowed(path: str, value: Any, message: str) -> None:
    assert complaints(with_value(path, value)) == [f"{path}: {message}"]


def test_a_missing_key_is_named() -> None:
    config = {key: value for key, value in STUDY.items() if key != "finetune"}
    assert complaints(config) == ["finetune: got nothing; this key is required"]
    no_process = with_value("backbones.third", {"preset": "SiT-S/2"})
    assert complaints(no_process) == ["backbones.third.process: got nothing; this key is required"]


def test_backbones_are_pretrained_on_upstream() -> None:
    config = copy.deepcopy(STUDY)
    config["datasets"]["downstreem"] = config["datasets"].pop("upstream")
    config["figures"]["figure2"]["data"] = "downstream"
    assert complaints(config) == [
        "datasets.upstream: got nothing; the backbones are pre-trained on a data set of this name"
    ]


def test_a_patch_must_divide_the_image() -> None:
    [line] = complaints(with_value("backbones.sit.preset", "SiT-S/3"))[:1]
    assert line.startswith("backbones.sit: got ")
    assert line.endswith("patch_size 3 does not divide the image size 8")


def test_a_u_nets_levels_must_halve_the_image() -> None:
    [line] = complaints(with_value("backbones.unet.unet.multipliers", [1, 1, 1, 1, 1]))
    assert line.startswith("backbones.unet: got ")
    assert line.endswith("5 levels need an image size that 2**4 divides")


@pytest.mark.parametrize("more", [{"preset": "SiT-S/2"}, {"depth": 6}])
def test_a_backbone_is_one_network(more: dict[str, Any]) -> None:
    [line] = complaints(with_value("backbones.unet", more))
    assert line.startswith("backbones.unet: got ")
    assert line.endswith("give preset, unet or explicit sizes, only one of them")


def test_a_u_net_is_audited_by_the_criteria_that_can_score_it() -> None:
    def audit(ratio: float) -> dict[str, Any]:
        criteria = {"ced": {"criterion": "ced"}, "masks": {"criterion": "learned"}}
        regime = {"candidates": [{"ratio": ratio, "steps": 4}]}
        return {"backbones": ["sit", "unet"], "data": "downstream", "regime": regime, "criteria": criteria}

    study = check(with_value("audit", audit(0.5)))
    assert study.audit is not None
    found = {name: list(study.audit.criteria_for(study.backbones[name])) for name in study.audit.backbones}
    assert found == {"sit": ["ced", "masks"], "unet": ["ced"]}
    assert study.backbones["unet"].blocks == 6
    assert complaints(with_value("audit", audit(0.95))) == [
        "audit.regime.candidates.0.ratio: got 0.95; allowed: a ratio that removes 1 to 5 of the 6 blocks of unet, not 6"
    ]


def test_all_data_sets_have_upstreams_shape() -> None:
    config = copy.deepcopy(STUDY)
    photos = {"source": "image_folder", "path": "p.zip", "image_size": 16}
    config["datasets"]["downstream"] = photos
    size, channels = complaints(config)
    assert size.startswith('datasets.downstream: got "image_size 16"; allowed: image_size 8')
    assert "channels 1 as upstream has" in channels


def of_latents(**latents: Any) -> dict[str, Any]:
    """The same study on latents of photographs."""
    config = with_value("latents", {"kind": "kl", "hub": "stabilityai/sd-vae-ft-ema"} | latents)
    photos = {"source": "image_folder", "path": "p.zip", "image_size": 64}
    return config | {"datasets": {"upstream": photos, "downstream": photos}}


def test_networks_of_a_study_of_latents_see_these() -> None:
    assert check(of_latents()).input_shape("upstream") == (4, 8)
    assert check(of_latents(channels=16, factor=4)).input_shape("upstream") == (16, 16)
    assert check(copy.deepcopy(STUDY)).input_shape("upstream") == (1, 8)
    scales = [check(of_latents(kind=kind)).latents for kind in ("kl", "tiny")]
    assert [latents and latents.scale for latents in scales] == [0.18215, 1.0]
    unet = merge(of_latents(), nested("backbones.unet", {"process": {"kind": "flow"}, "unet": {"multipliers": [1, 2]}}))
    regime = {"candidates": [{"ratio": 0.5, "steps": 4}]}
    audit = {"backbones": ["sit", "unet"], "data": "downstream", "regime": regime}
    assert check(unet | {"audit": audit | {"criteria": {"ced": {"criterion": "ced"}}}}).audit is not None
    line = complaints(merge(of_latents(), nested("backbones.sit.preset", "SiT-S/3")))[0]
    assert line.endswith("patch_size 3 does not divide the image size 8")


@pytest.mark.parametrize(
    ("latents", "path", "value", "message"),
    [
        ({"factor": 5}, "seeds", [0], "datasets.upstream.image_size: got 64; allowed: a multiple of 5, which is "
         "latents.factor"),
        ({"mirror": False}, "adapt.horizontal_flip", True, "adapt.horizontal_flip: got true; allowed: false; or "
         "latents.mirror true, for the latents of mirror images"),
        ({"mirror": False}, "arms.ours.override.finetune.horizontal_flip", True,
         "arms.ours.override.finetune.horizontal_flip: got true; allowed: false; or latents.mirror true, for the "
         "latents of mirror images"),
        ({"folder": "vae"}, "seeds", [0], "allowed: give folder or hub, one of them"),
        ({"hub": "sd-vae"}, "seeds", [0], 'latents.hub: got "sd-vae"; allowed: text of the form'),
        ({}, "datasets.upstream", {"source": "digits"}, 'datasets.upstream: got "channels 1"; allowed: RGB images'),
    ],
)  # fmt: skip
def test_what_latents_cannot_give_is_refused(latents: dict[str, Any], path: str, value: Any, message: str) -> None:
    config = merge(of_latents(**latents), nested(path, value))
    if path == "datasets.upstream":
        config["datasets"]["upstream"] = value
    assert any(message in line for line in complaints(config))


def test_every_stage_takes_a_step() -> None:
    [line] = complaints(with_value("finetune.steps", 4))
    assert line.startswith("pruning.stages: got 3; allowed: at most the 4 steps of finetune times pruning.fraction 0.5")


def test_held_out_images_are_not_the_training_images() -> None:
    folder = {"source": "image_folder", "path": "x.zip", "image_size": 32, "test": "train"}
    assert complaints(with_value("datasets.birds", folder)) == [
        'datasets.birds.test: got "train"; allowed: another folder than train'
    ]


def test_only_one_distance_is_called_fid() -> None:
    nets = {"one": {"kind": "inception"}, "two": {"kind": "inception"}}
    [line] = complaints(with_value("evaluation.extractors", nets))
    assert line.startswith("evaluation: ")
    assert "one inception net only" in line


def test_everything_wrong_is_said_at_once_and_by_the_file_that_said_it(tmp_path: Path) -> None:
    study = with_value("pretrain.batch_sise", 8)
    study = merge(study, nested("pruning.stages", 2))
    study["arms"]["full"]["data"] = "elsewhere"
    base = write(tmp_path / "study.yaml", study)
    wrong = {"pruning": {"stages": 5}, "sampling": {"guidance": 0.5}, "arms": {"full": {"schedule": "vot"}}}
    overlay = write(tmp_path / "overlay.yaml", wrong)

    with pytest.raises(UserError) as caught:
        read_study([base, overlay])
    said = [line.split(": ")[:2] for line in str(caught.value).splitlines()]
    assert sorted(said) == sorted(
        [
            [str(base), "pretrain.batch_sise"],
            [str(base), "arms.full.data"],
            [str(overlay), "arms.full.schedule"],
            [str(overlay), "sampling.guidance"],
            [str(overlay), "pruning.stages"],
        ]
    )
    with pytest.raises(UserError) as again:  # as Snakemake asks, with its own merged config
        check(merge(study, wrong), [base, overlay])
    assert str(again.value) == str(caught.value)


def test_a_damaged_section_raises_no_further_complaints() -> None:
    broken = with_value("backbones.dit.depth", "six")  # arms, tables and figures of dit are not to blame
    assert complaints(broken) == ['backbones.dit.depth: got "six"; allowed: a whole number above 0']


def test_overlays_merge_mappings_and_replace_lists(tmp_path: Path) -> None:
    overlay = {"arms": {"ours": {"ratio": [0.5, 0.7]}}, "scoring": {"draws": 64}}
    study = read_study([write(tmp_path / "a.yaml", STUDY), write(tmp_path / "b.yaml", overlay)])
    assert study.arms["ours"].ratio == (0.5, 0.7)
    assert study.arms["ours"].label == "EntPruner"
    assert study.scoring.draws == 64
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", ":4: not valid YAML: key 'c' is given twice"),
        ("a: [1\nb: 2\n", ":2: not valid YAML: expected ',' or ']', but got ':'"),
        ("- a\n", ': got ["a"]; allowed: a mapping of keys to values'),
    ],
)
def test_yaml_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_study([file, tmp_path / "absent.yaml"])
    first, second = str(caught.value).splitlines()
    assert first == f"{file}{message}"
    assert second.startswith(f"{tmp_path / 'absent.yaml'}: cannot be read")


overlays = st.fixed_dictionaries(
    {},
    optional={
        "seeds": st.lists(st.integers(0, 9), min_size=1, unique=True),
        "scoring": st.fixed_dictionaries({"draws": st.integers(1, 10**6)}),
        "finetune": st.fixed_dictionaries(
            {
                "steps": st.integers(20, 10**6),
                "learning_rate": st.floats(min_value=1e-300, allow_infinity=False),
                "gradient_clip": st.none() | st.floats(1e-9, 1e9),
                "decay": st.sampled_from(["constant", "cosine"]),
            }
        ),
        "tables": st.dictionaries(
            st.from_regex(r"[A-Za-z][A-Za-z0-9_]*", fullmatch=True),
            st.fixed_dictionaries({"caption": st.text(), "arms": st.just(["ours"])}),
            max_size=2,
        ),
    },
)


@settings(max_examples=40, deadline=None)
@given(overlays)
@example({"tables": {"A": {"caption": "a\x85b\u2028", "arms": ["ours"]}}})
def test_the_shown_study_reads_as_the_same_study(overlay: dict[str, Any]) -> None:
    study = check(merge(STUDY, overlay))
    again = yaml.safe_load(show(study))
    assert check(again) == study
    assert again["backbones"]["sit"]["preset"] == "SiT-S/2"
    assert again["sampling"]["flow"]["rtol"] == 1e-3


def test_schema_file_is_in_step() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == schema(), "run: entpruner params schema > params/schema.json"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seeds", [3]),
        ("datasets.upstream.test_fraction", 0.5),
        ("arms.ours.ratio", 0.3),
        ("arms.ours.ratio", 1.2),
        ("arms.ours.ratio", 0),
        ("arms.ours.criterion", "cde"),
        ("pruning.stagse", 4),
        ("finetune.steps", "ten"),
        ("finetune.betas", [0.9]),
        ("backbones.sit.process.kind", "flwo"),
        ("backbones.sit.preset", "SiT-M/2"),
        ("backbones.unet.unet.channels", 12),
        ("backbones.unet.unet.channels", 24),
        ("backbones.unet.unet.levels", 3),
        ("tables.bad-name", {"caption": "x", "arms": ["ours"]}),
        ("figures.figure8.arms", []),
        ("seeds", [0, 0]),
        ("evaluation.extractors.squeeze", {"kind": "torchvision", "model": "squeezenet1_0"}),
    ],
)
def test_the_schema_agrees_with_the_model(path: str, value: Any) -> None:
    config = with_value(path, value)
    try:
        Study.model_validate(config)
        valid = True
    except ValidationError:
        valid = False
    assert Draft202012Validator(schema()).is_valid(config) == valid


def test_snakemake_validates_with_the_schema_and_leaves_the_config_alone() -> None:
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import validate

    config = copy.deepcopy(STUDY)
    validate(config, str(SCHEMA_FILE))
    assert config == STUDY
    with pytest.raises(WorkflowError, match="stagse"):
        validate(with_value("pruning.stagse", 4), str(SCHEMA_FILE))


@pytest.mark.parametrize(("depth", "ratio", "removed"), [(12, 0.3, 4), (12, 0.5, 6), (28, 0.3, 8), (28, 0.5, 14)])
def test_blocks_to_remove(depth: int, ratio: float, removed: int) -> None:
    assert blocks_to_remove(depth, ratio) == removed


def test_only_an_unpruned_arm_may_train_a_part_of_its_weights() -> None:
    override = {"finetune": {"method": "lora"}}
    assert complaints(with_value("arms.ours.override", override)) == [
        'arms.ours.override.finetune.method: got "lora"; allowed: full: arm ours is pruned, and its other weights must '
        "be free to make up for it"
    ]
    check(with_value("arms.full.override", override))


def test_a_pruned_arm_starts_at_the_network_that_its_blocks_were_scored_on() -> None:
    assert complaints(with_value("arms.ours.start", "pretrained")) == [
        'arms.ours.start: got "pretrained"; allowed: adapted: arm ours is pruned, by scores of the adapted network'
    ]
    check(with_value("arms.full.start", "pretrained"))


def test_a_teacher_must_know_the_classes_of_the_data() -> None:
    arm = {"start": "pretrained", "override": {"finetune": {"distillation": {}}}}
    assert complaints(with_value("arms.full", STUDY["arms"]["full"] | arm)) == [
        'arms.full.start: got "pretrained"; allowed: adapted, or no finetune.distillation for arm full: a teacher must '
        "know the data's classes"
    ]
    check(with_value("arms.full", STUDY["arms"]["full"] | arm | {"data": "upstream"}))
    check(with_value("arms.full", STUDY["arms"]["full"] | arm | {"start": "adapted"}))


def test_processes_share_whole_batches() -> None:
    shared = with_value("compute", {"gpus": 3, "nodes": 2})
    key = "allowed: a multiple of 6: so many processes (compute.gpus times nodes) share it evenly"
    trainings = {name: shared[name] | {"batch_size": 12} for name in ("pretrain", "adapt", "finetune")}
    check(shared | trainings)
    override = {"override": {"finetune": {"batch_size": 8}}}
    arms = shared["arms"] | {"full": shared["arms"]["full"] | override}
    assert complaints(shared | trainings | {"arms": arms}) == [f"arms.full.override.finetune.batch_size: got 8; {key}"]
    assert complaints(shared | trainings | {"adapt": shared["adapt"] | {"batch_size": 32}}) == [
        f"adapt.batch_size: got 32; {key}"
    ]


def test_hidden_states_are_compared_over_whole_batches() -> None:
    pieces = with_value("compute", {"micro_batch": 8})
    arms = {"full": pieces["arms"]["full"] | {"override": {"finetune": {"distillation": {}}}}}
    assert complaints(pieces | {"arms": pieces["arms"] | arms}) == [
        "compute.micro_batch: got 8; allowed: none with finetune.distillation.features above 0, which compares whole "
        "batches of hidden states"
    ]
    arms = {"full": pieces["arms"]["full"] | {"override": {"finetune": {"distillation": {"features": 0}}}}}
    check(pieces | {"arms": pieces["arms"] | arms})
