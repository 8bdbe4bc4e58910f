"""The recipes for maintainers, each walked in a copy of the repository: what one new file is enough for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scoring_context import images, network

from entpruner.data.store import write_store
from entpruner.models.checkpoints import ModelCard, save_model
from entpruner.params.backbones import Flow
from entpruner.system.files import read_json

ROOT = Path(__file__).parents[1]

MIDDLE_FIRST = """
import torch

from entpruner.scores.context import Importance, ScoreContext

COST = 0
SIZED: bool = False


def score(context: ScoreContext) -> Importance:
    place = torch.arange(len(context.model.blocks)).double()
    return Importance((place - place.mean()).abs(), stderr=0.0)
"""

SCHEMA_WITHOUT_TORCH = """
import sys
from entpruner import cli

assert cli.main(["params", "schema"]) == 0
assert "torch" not in sys.modules
"""

SCORED_AND_TABLED = """
from pathlib import Path
from small_study import finish_smoke
from entpruner import cli
from entpruner.commands import table
from entpruner.params.files import read_study
from entpruner.study.arms import ArmIdentity, expand

assert cli.main(["score", "model", "store", "--criterion", "middle_first", "--out", "scores.json"]) == 0

study, results = read_study([Path("params/smoke.yaml")]), Path("results/smoke")
finish_smoke(results)
arms = [ArmIdentity(**{key: getattr(arm, key) for key in ArmIdentity.model_fields}) for arm in expand(study).values()]
columns = study.tables["table1"].columns
settings = table.Settings(name="table1", caption="", columns=columns, distance="fid", command="make", arms=arms)
table.run(settings, results=results, reference=Path("params/reference.yaml"), out=Path("tables"))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, the params files, and what makes a small finished study."""
    for folder in ("entpruner", "params"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "tests/small_study.py", tmp_path / "tests")
    return tmp_path


def python(copy: Path, *arguments: str) -> str:
    """What Python prints when it runs in the copy, with the copy's package."""
    environment = os.environ | {"PYTHONPATH": f"{copy}:{copy / 'tests'}"}
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_new_criterion_is_one_file(copy: Path) -> None:
    (copy / "entpruner/scores/criteria/middle_first.py").write_text(MIDDLE_FIRST)
    study = yaml.safe_load((copy / "params/smoke.yaml").read_text())
    arm = {"backbone": "sit", "data": "downstream", "schedule": "one_shot", "ratio": 0.5}
    study["arms"]["middle"] = arm | {"label": "the middle first", "criterion": "middle_first"}
    study["tables"]["table1"]["arms"].append("middle")
    (copy / "params/smoke.yaml").write_text(yaml.safe_dump(study))

    def entpruner(*arguments: str) -> str:
        return python(copy, "-m", "entpruner.cli", *arguments)

    entpruner("params", "check", "params/smoke.yaml")
    assert "middle_first" in entpruner("score", "--help")
    properties = json.loads(python(copy, "-c", SCHEMA_WITHOUT_TORCH))["$defs"]["ArmSpec"]["properties"]
    assert "middle_first" in properties["criterion"]["anyOf"][0]["enum"]

    drawn, model = images(), network()
    write_store(copy / "store", {"train": (drawn.images, drawn.labels)}, ["a", "b", "c"], {})
    shape = {"architecture": model.architecture, "kept_blocks": model.kept_blocks}
    (copy / "model").mkdir()
    save_model(copy / "model", model, ModelCard(**shape, process=Flow(), class_names=("a", "b", "c")))
    python(copy, "-c", SCORED_AND_TABLED)
    assert read_json(copy / "scores.json")["value"] == [1.5, 0.5, 0.5, 1.5]
    assert "| the middle first |" in (copy / "tables/table1.md").read_text()
