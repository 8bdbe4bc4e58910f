"""The record of each rule, its command and its rule in the workflow say the same."""

import ast
import re
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from snakemake_runs import ROOT

from entpruner import layout
from entpruner.cli.rule import options_of
from entpruner.params.base import Frozen
from entpruner.params.files import read_study
from entpruner.planning.plan import jobs_of
from entpruner.rules import RULES
from entpruner.rules.rule import Job, Rule
from entpruner.study.resolved import ResolvedStudy

CHAPTERS = {file: file.read_text() for file in sorted((ROOT / "workflow/rules").glob("*.smk"))}
WRITTEN = {
    name: (file.stem, body)
    for file, text in CHAPTERS.items()
    for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", text, re.MULTILINE | re.DOTALL)
    if name != "audit"
}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[ResolvedStudy, Job]]:
    """A job of every rule, with its study: of the smoke study, or of one of latents, a checkpoint and a download."""
    smoke = ROOT / "params/smoke.yaml"
    content = yaml.safe_load(smoke.read_text())
    folder = {"source": "image_folder", "image_size": 16}
    content["datasets"] = {
        "upstream": folder | {"url": "https://example.org/up.zip", "sha256": "a" * 64},
        "downstream": folder | {"path": "down.zip"},
    }
    content |= {"latents": {"kind": "kl", "folder": "vae", "factor": 2, "shards": 2}, "audit": None}
    content["backbones"]["dit"]["checkpoint"] = {"path": "dit.pt"}
    content["arms"]["one_shot"] = content["arms"]["entpruner"] | {"schedule": "one_shot"}
    content |= {"seeds": [0, 1], "effects": {"crossed": {"caption": "x", "arms": ["one_shot", "entpruner"]}}}
    latents = tmp_path_factory.mktemp("latents") / "latents.yaml"
    latents.write_text(yaml.safe_dump(content, sort_keys=False))
    found: dict[str, tuple[ResolvedStudy, Job]] = {}
    for file, targets in ((smoke, ["all", "audit"]), (latents, ["all"])):
        study = ResolvedStudy(read_study([file]), [file])
        for job in (job for some in jobs_of([file], targets) for job in some):
            found.setdefault(job.rule, (study, job))
    return found


def test_every_record_has_a_rule_in_the_chapter_of_its_name_and_a_command() -> None:
    assert WRITTEN.keys() == RULES.keys()
    for name, rule in RULES.items():
        assert type(rule).__module__ == f"entpruner.rules.{WRITTEN[name][0]}"
        assert Path(import_module(rule.module).__file__ or "").stem == name


@pytest.mark.parametrize("name", RULES)
def test_a_rule_asks_its_own_record_alone(name: str) -> None:
    _, body = WRITTEN[name]
    asked = Counter(re.findall(r'\b(?:inputs|outputs|log_of|asks|params|settings_of)\("(\w+)"', body))
    assert asked.keys() == {name}
    assert f"entpruner rule {name} --settings {{params.settings:q}}" in body


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
def test_the_settings_and_paths_of_a_rule_are_those_that_its_command_takes(
    jobs: dict[str, tuple[ResolvedStudy, Job]], rule: Rule
) -> None:
    study, job = jobs[rule.name]
    command: Any = import_module(rule.module).run
    settings = rule.settings(study, job)
    kind = get_type_hints(command)["settings"]
    assert isinstance(settings, kind)
    assert kind.model_validate_json(settings.model_dump_json()) == settings
    taken = options_of(command).keys() - {"threads"}
    assert taken == rule.inputs(study, job).keys() | rule.outputs(study.paths).keys()
    assert ("threads" in options_of(command)) == ("--threads" in WRITTEN[rule.name][1])


def test_what_a_rule_reads_another_makes_or_the_user_brings(jobs: dict[str, tuple[ResolvedStudy, Job]]) -> None:
    """So no path is spelled twice: Snakemake would miss the file."""
    for study, job in jobs.values():
        patterns = [
            re.sub(r"\\{(\w+)\\}", r".*", re.escape(path))
            for rule in RULES.values()
            if rule.name != "download"
            for path in rule.files_out(study.paths).values()
        ]
        brought = {*study.downloads, str(ROOT / "params/reference.yaml"), str(ROOT / "workflow/report/story.html.j2")}
        for path in (path for paths in RULES[job.rule].files_in(study, job).values() for path in paths):
            assert path in brought or any(re.fullmatch(pattern, path) for pattern in patterns), (job, path)


def test_the_layout_alone_spells_the_files_of_artefacts_and_the_folder_of_results() -> None:
    names = {value for value in vars(layout).values() if isinstance(value, str) and re.search(r"^\w+\.\w+$", value)}
    names -= {layout.__name__}
    assert {"model.safetensors", "timing.json"} <= names
    package = Path(layout.__file__).parent
    for file in set(package.rglob("*.py")) - {Path(layout.__file__)}:
        tree = ast.parse(file.read_text())
        said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in said]
        spelled = [text for text in texts if isinstance(text, str) and " " not in text]
        assert not [
            text for text in spelled if text.split("/")[-1] in names or re.match(r"results/(?!published/<)", text)
        ], file


def test_a_record_that_does_not_say_what_it_makes_fails_when_it_is_made() -> None:
    class Unfinished(Rule):
        name = "unfinished"

        def settings(self, study: ResolvedStudy, job: Job) -> Frozen:
            return Frozen()

    with pytest.raises(AttributeError, match="made"):
        Unfinished()
