"""Params files: what is refused and how it is said, overlays, the resolved study, the schema."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError
from test_messages import SOUND as STUDY
from test_messages import laid_over

from entpruner.errors import UserError
from entpruner.params.base import merge
from entpruner.params.files import DEFAULT_STUDY, check, read_study, schema, show
from entpruner.params.pruning import blocks_to_remove
from entpruner.params.study import Study

PARAMS = Path(__file__).parents[1] / "params"
SCHEMA_FILE = PARAMS / "schema.json"


def write(path: Path, config: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path


def test_a_u_net_is_audited_by_the_criteria_that_can_score_it() -> None:
    criteria = {"ced": {"criterion": "ced"}, "masks": {"criterion": "learned"}}
    regime = {"candidates": [{"ratio": 0.5, "steps": 4}]}
    audit = {"backbones": ["sit", "unet"], "data": "downstream", "regime": regime, "criteria": criteria}
    study = check(laid_over(STUDY, "audit", audit))
    assert study.audit is not None
    found = {name: list(study.audit.criteria_for(study.backbones[name])) for name in study.audit.backbones}
    assert found == {"sit": ["ced", "masks"], "unet": ["ced"]}
    assert study.backbones["unet"].blocks == 6


def of_latents(**latents: Any) -> dict[str, Any]:
    """The same study on latents of photographs."""
    config = laid_over(STUDY, "latents", {"kind": "kl", "hub": "stabilityai/sd-vae-ft-ema"} | latents)
    photos = {"source": "image_folder", "path": "p.zip", "image_size": 64}
    return config | {"datasets": {"upstream": photos, "downstream": photos}}


def test_networks_of_a_study_of_latents_see_these() -> None:
    assert check(of_latents()).input_shape("upstream") == (4, 8)
    assert check(of_latents(channels=16, factor=4)).input_shape("upstream") == (16, 16)
    assert check(STUDY).input_shape("upstream") == (1, 8)
    scales = [check(of_latents(kind=kind)).latents for kind in ("kl", "tiny")]
    assert [latents and latents.scale for latents in scales] == [0.18215, 1.0]
    unet = merge(of_latents(), {"backbones": {"unet": {"process": {"kind": "flow"}, "unet": {"multipliers": [1, 2]}}}})
    regime = {"candidates": [{"ratio": 0.5, "steps": 4}]}
    audit = {"backbones": ["sit", "unet"], "data": "downstream", "regime": regime}
    assert check(unet | {"audit": audit | {"criteria": {"ced": {"criterion": "ced"}}}}).audit is not None


def test_snakemakes_own_merged_config_gets_the_same_lines(tmp_path: Path) -> None:
    overlay = {"pruning": {"stages": 5}, "arms": {"full": {"schedule": "vot"}}}
    files = [write(tmp_path / "study.yaml", STUDY), write(tmp_path / "overlay.yaml", overlay)]
    with pytest.raises(UserError) as caught:
        read_study(files)
    with pytest.raises(UserError) as again:
        check(merge(STUDY, overlay), files)
    assert str(again.value) == str(caught.value)


def test_overlays_merge_mappings_and_replace_lists(tmp_path: Path) -> None:
    overlay = {"arms": {"ours": {"ratio": [0.5, 0.7]}}, "scoring": {"draws": 64}}
    study = read_study([write(tmp_path / "a.yaml", STUDY), write(tmp_path / "b.yaml", overlay)])
    assert study.arms["ours"].ratio == (0.5, 0.7)
    assert study.arms["ours"].label == "EntPruner"
    assert study.scoring.draws == 64
    assert merge({"a": {"b": 1, "c": [1, 2]}}, {"a": {"c": [3]}}) == {"a": {"b": 1, "c": [3]}}


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


@settings(max_examples=15)
@given(overlays)
@example({"tables": {"A": {"caption": "a\x85b\u2028", "arms": ["ours"]}}})
def test_the_shown_study_reads_as_the_same_study(overlay: dict[str, Any]) -> None:
    study = check(merge(STUDY, overlay))
    again = yaml.safe_load(show(study))
    assert check(again) == study
    assert again["backbones"]["sit"]["preset"] == "SiT-S/2"
    assert again["sampling"]["flow"]["rtol"] == 1e-3


RICH: dict[str, Any] = STUDY | {
    "datasets": {
        "upstream": {"source": "image_folder", "path": "p.zip", "image_size": 64},
        "downstream": {"source": "image_folder", "path": "p.zip", "image_size": 64},
    },
    "latents": {"kind": "kl", "hub": "stabilityai/sd-vae-ft-ema"},
    "backbones": {name: backbone for name, backbone in STUDY["backbones"].items() if name != "unet"},
    "finetune": {"steps": 20, "distillation": {}},
    "audit": {
        "backbones": ["sit"],
        "data": "downstream",
        "regime": {"candidates": [{"ratio": 0.5, "steps": 4}]},
        "criteria": {"ced": {"criterion": "ced"}},
    },
}
"""A study with all optional sections."""


def with_a_wrong_key(model: BaseModel, config: dict[str, Any], place: str = "") -> Iterator[tuple[str, str]]:
    """Misspell every key of a config in turn, in place: the path of the wrong key, and the right one."""
    for name in type(model).model_fields:
        wrong = f"{name}_" if len(name) > 3 else f"{name}{name[-1]}"
        config[wrong] = 1
        yield place + wrong, name
        del config[wrong]
        inner, values = getattr(model, name), config.get(name)
        entries = [(f"{name}.", inner, values)]
        if isinstance(inner, dict | tuple):
            keys = inner.keys() if isinstance(inner, dict) else range(len(inner))
            entries = [(f"{name}.{key}.", inner[key], values[key]) for key in keys]
        for at, section, section_values in entries:
            if isinstance(section, BaseModel):
                yield from with_a_wrong_key(section, section_values, place + at)


def test_every_key_that_is_misspelt_gets_the_right_one_for_a_hint() -> None:
    study = check(RICH)
    config, tried = study.model_dump(mode="json"), set()
    for wrong, right in with_a_wrong_key(study, config):
        with pytest.raises(UserError) as caught:
            check(config)
        [line] = str(caught.value).splitlines()
        assert line.startswith(f"{wrong}: got an unknown key; allowed: the keys ")
        assert line.endswith(f"; did you mean '{right}'?")
        tried.add(re.sub(r"\.\d+\.", ".", wrong))
    assert len(tried) > 150


def test_a_file_of_nonsense_is_told_in_a_screenful(tmp_path: Path) -> None:
    file = write(tmp_path / "study.yaml", STUDY | {f"key{number}": 1 for number in range(200)})
    with pytest.raises(UserError) as caught:
        read_study([file])
    *lines, rest = str(caught.value).splitlines()
    assert len(lines) == 20 and rest == "and 80 or more problems besides; correct these first"


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("backbones.dit.depth", 10**9, "at most 1,000 blocks"),
        ("backbones.dit.hidden_size", 10**9, "at most 65,536 channels or features"),
        ("backbones.unet.unet.blocks_per_level", 10**9, "at most 1,000 blocks"),
        ("pruning.stages", 10**9, "at most 100 stages"),
        ("arms.ours.override.pruning.stages", 10**9, "at most 100 stages"),
        ("latents", {"kind": "kl", "hub": "a/b", "shards": 10**9}, "at most 10,000 jobs"),
        ("compute.gpus", 10**9, "at most 1,024 processes"),
        ("finetune.steps", 10**13, "a whole number of at most 1,000,000,000,000"),
        ("arms.ours.seeds", list(range(2001)), "at most 2,000 rows of a grid: backbones times data, ratios and seeds"),
    ],
)
def test_what_no_study_can_be_is_refused_by_the_limit(path: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError) as caught:
        check(laid_over(STUDY, path, value))
    assert any(f"allowed: {allowed}" in line for line in str(caught.value).splitlines()), str(caught.value)


UNSET = yaml.safe_load(Path(__file__).with_name("unset_keys.yaml").read_text())


def sections_of(kind: Any) -> set[type[BaseModel]]:
    """The classes of the sections that a type may hold."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        inner = [sections_of(field.annotation) for field in kind.model_fields.values()]
        return {kind}.union(*inner)
    return set[type[BaseModel]]().union(*map(sections_of, get_args(kind)))


def key(section: type[BaseModel], name: str) -> str:
    """A key by the name of the class that says what it means."""
    owner = next(base for base in reversed(section.__mro__) if name in getattr(base, "__annotations__", {}))
    return f"{owner.__name__}.{name}"


def keys_set(value: Any) -> set[str]:
    """The keys that a params file gave to a section or to those inside it."""
    if isinstance(value, BaseModel):
        inner = (keys_set(getattr(value, name)) for name in value.model_fields_set)
        return {key(type(value), name) for name in value.model_fields_set}.union(*inner)
    values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return set[str]().union(*map(keys_set, values))


def test_a_key_that_no_shipped_file_sets_has_a_reason() -> None:
    shipped = [[path] for path in sorted(PARAMS.glob("*.yaml")) if path.name != "reference.yaml"]
    shipped += [[DEFAULT_STUDY, path] for path in sorted(PARAMS.glob("ablations/*.yaml"))]
    given = set()
    for study in map(read_study, shipped):
        given |= keys_set(study)
        overlays = [overlay for arm in study.arms.values() for overlay in arm.override]
        overlays += [("scoring", one.scoring) for one in study.audit.criteria.values()] if study.audit else []
        for section, overlay in overlays:
            whole = {"steps": 1} | overlay if section == "finetune" else overlay
            given |= keys_set(type(getattr(study, section)).model_validate(whole))
    leaves = {
        key(section, name)
        for section in sections_of(Study)
        for name, field in section.model_fields.items()
        if not sections_of(field.annotation)
    }
    assert leaves - given == set(" ".join(UNSET.values()).split())


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
        ("backbones.unet.unet.multipliers", []),
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
    config = laid_over(STUDY, path, value)
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
    validate(config, str(SCHEMA_FILE), set_default=False)
    assert config == STUDY
    with pytest.raises(WorkflowError, match="stagse"):
        validate(laid_over(STUDY, "pruning.stagse", 4), str(SCHEMA_FILE), set_default=False)


@pytest.mark.parametrize(("depth", "ratio", "removed"), [(12, 0.3, 4), (12, 0.5, 6), (28, 0.3, 8), (28, 0.5, 14)])
def test_blocks_to_remove(depth: int, ratio: float, removed: int) -> None:
    assert blocks_to_remove(depth, ratio) == removed


TRAININGS = ("pretrain", "adapt", "finetune")


@pytest.mark.parametrize(
    "sound",
    [
        {"arms.full.override": {"finetune": {"method": "lora"}}},
        {"arms.full.start": "pretrained"},
        {"arms.full.start": "pretrained", "arms.full.override.finetune.distillation": {}, "arms.full.data": "upstream"},
        {"arms.full.override.finetune.distillation": {}},
        {"compute": {"gpus": 3, "nodes": 2}} | {f"{training}.batch_size": 12 for training in TRAININGS},
        {"compute.micro_batch": 8, "arms.full.override.finetune.distillation": {"features": 0}},
    ],
)
def test_what_is_close_to_a_fault_is_allowed(sound: dict[str, Any]) -> None:
    config = STUDY
    for path, value in sound.items():
        config = laid_over(config, path, value)
    check(config)
