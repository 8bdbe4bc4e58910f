"""The recipes of CONTRIBUTING.md, each walked to its end in a copy of the repository."""

import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryFile

import pytest
import yaml
from processes import in_a_fork
from scoring_context import images, network
from snakemake_runs import ROOT, copy_sources, enter, environment, snakemake

from entpruner.data.writing import write_store
from entpruner.models.checkpoints import ModelCard, save_model
from entpruner.params.backbones import Flow
from entpruner.system.files import read_json

RECIPES = yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text())

SCHEMA_WITHOUT_TORCH = """
import sys
from entpruner import cli

sys.modules["torch"] = None  # its import would be an error
assert cli.main(["params", "schema"]) == 0
"""

SCORED_AND_TABLED = """
from pathlib import Path
from small_study import finish_smoke
from entpruner import cli
from entpruner.commands import table
from entpruner.rules.report import TableSettings
from entpruner.params.files import read_study
from entpruner.study.arms import ArmIdentity, expand

assert cli.main(["score", "model", "store", "--criterion", "middle_first", "--out", "scores.json"]) == 0

study, results = read_study([Path("params/smoke.yaml")]), Path("results/smoke")
finish_smoke(results)
arms = [ArmIdentity(**{key: getattr(arm, key) for key in ArmIdentity.model_fields}) for arm in expand(study).values()]
columns = study.tables["table1"].columns
settings = TableSettings(name="table1", caption="", columns=columns, distance="fid", command="make", arms=arms)
table.run(settings, results=results, reference=Path("params/reference.yaml"), out=Path("tables"))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, the params files, and what makes a small finished study."""
    copy_sources(tmp_path)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/small_study.py", tmp_path / "tests")
    return tmp_path


def python(copy: Path, code: str) -> str:
    """What a fork of this process prints that runs code in the copy, with the copy's package."""

    def run() -> None:
        os.chdir(copy)
        sys.modules.pop("small_study", None)
        sys.path.insert(0, str(copy / "tests"))
        enter(copy, environment(copy), said.fileno())
        exec(code, {})

    with TemporaryFile("w+") as said:
        failed = in_a_fork(run)
        said.seek(0)
        output = said.read()
    assert not failed, output
    return output


def entpruner(copy: Path, *arguments: str) -> str:
    return python(copy, f"from entpruner import cli; raise SystemExit(cli.main({arguments!r}))")


def test_a_new_criterion_is_one_file(copy: Path) -> None:
    follow(copy, "criterion")
    study = yaml.safe_load((copy / "params/smoke.yaml").read_text())
    arm = {"backbone": "sit", "data": "downstream", "schedule": "one_shot", "ratio": 0.5}
    study["arms"]["middle"] = arm | {"label": "the middle first", "criterion": "middle_first"}
    study["tables"]["table1"]["arms"].append("middle")
    (copy / "params/smoke.yaml").write_text(yaml.safe_dump(study))
    entpruner(copy, "params", "check", "params/smoke.yaml")
    assert "middle_first" in entpruner(copy, "score", "--help")
    properties = json.loads(python(copy, SCHEMA_WITHOUT_TORCH))["$defs"]["ArmSpec"]["properties"]
    assert "middle_first" in properties["criterion"]["anyOf"][0]["enum"]

    drawn, model = images(), network()
    write_store(copy / "store", {"train": (drawn.images, drawn.labels)}, ["a", "b", "c"], {})
    shape = {"architecture": model.architecture, "kept_blocks": model.kept_blocks}
    (copy / "model").mkdir()
    save_model(copy / "model", model, ModelCard(**shape, process=Flow(), class_names=("a", "b", "c")))
    python(copy, SCORED_AND_TABLED)
    assert read_json(copy / "scores.json")["value"] == [1.5, 0.5, 0.5, 1.5]
    assert "| the middle first |" in (copy / "tables/table1.md").read_text()


# --------------------------------------------------------------------------------------------------------------- rules


def follow(copy: Path, recipe: str) -> None:
    """Write each text of the recipe before a line of its file, or at the end of a file that may be new."""
    for name, new in RECIPES[recipe].items():
        file, before, text = copy / name, new.get("before"), new["text"]
        content = file.read_text() if file.exists() else ""
        if before is None:
            file.write_text(content + text)
        else:
            assert content.count(before) == 1, (name, before)
            kept = "" if text.rstrip().endswith(before.rstrip()) or before.rstrip() in text else before
            file.write_text(content.replace(before, text + kept))


def test_a_new_rule_is_four_files(copy: Path) -> None:
    follow(copy, "rule")
    assert len(RECIPES["rule"]) == 4
    assert "census" in entpruner(copy, "rule", "--help")
    asked = ("results/smoke/census/upstream.json", "--configfile", str(copy / "params/smoke.yaml"))
    snakemake(copy, *asked, house=copy)
    assert sum(read_json(copy / "results/smoke/census/upstream.json")) > 100
    assert (copy / "results/smoke/logs/census/upstream.log").exists()
    assert "Nothing to be done" in snakemake(copy, *asked, house=copy)


def test_a_new_data_set_is_three_files(copy: Path) -> None:
    follow(copy, "data set")
    sources = copy / "entpruner/data/sources.py"
    first = "from entpruner.params.datasets"
    imported = f"from entpruner.data.stripes import prepare_stripes\n{first} import Stripes\n{first}"
    sources.write_text(sources.read_text().replace(first, imported, 1))
    study = yaml.safe_load((copy / "params/smoke.yaml").read_text())
    study["datasets"]["upstream"] = {"source": "stripes", "image_size": 8}
    (copy / "params/smoke.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    params = str(copy / "params/smoke.yaml")
    snakemake(copy, "results/smoke/data/upstream/manifest.json", "--configfile", params, house=copy)
    manifest = read_json(copy / "results/smoke/data/upstream/manifest.json")
    assert manifest["class_names"] == ["upright", "level"]
    assert '"stripes"' in entpruner(copy, "params", "schema")
