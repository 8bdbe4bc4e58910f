"""The recipes of CONTRIBUTING.md, each walked to its end in a copy of the repository."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from scoring_context import images, network

from entpruner.data.writing import write_store
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
    for folder in ("entpruner", "params", "workflow"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", tmp_path)
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


# --------------------------------------------------------------------------------------------------------------- rules


CENSUS = {
    "entpruner/layout.py": (
        "    def arm(self, arm: str) -> Path:\n",
        '    def census(self, data: str) -> Artefact:\n        return file(self.root / "census" / f"{data}.json")\n\n',
    ),
    "entpruner/rules/data.py": (
        "RULES = (",
        '''class CensusSettings(Frozen):
    split: str


class Census(Rule):
    """Count the images of each class."""

    name = "census"

    def settings(self, study: ResolvedStudy, job: Job) -> CensusSettings:
        return CensusSettings(split="train")

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"store": study.paths.pixels(job.data)}

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.census("{data}")}


RULES = (Census(), ''',
    ),
    "workflow/rules/data.smk": (
        None,
        """

rule census:
    input:
        unpack(inputs("census")),
    output:
        **outputs("census"),
    log:
        log_of("census"),
    resources:
        **asks("census"),
    params:
        **params("census"),
    message:
        "Counting the classes of {wildcards.data}"
    shell:
        "entpruner rule census --settings {params.settings:q} {params.paths} &> {log}"
""",
    ),
    "entpruner/commands/census.py": (
        None,
        """
from pathlib import Path

import numpy as np

from entpruner.data.store import Store
from entpruner.rules.data import CensusSettings
from entpruner.system.files import write_json


def run(settings: CensusSettings, *, store: Path, out: Path) -> None:
    write_json(out, np.bincount(Store.open(store).split(settings.split).labels).tolist())
""",
    ),
}
"""What a new rule writes into each of four files, and before which line."""

STRIPES = {
    "entpruner/params/datasets.py": (
        "Dataset = Annotated[\n    ",
        """class Stripes(Frozen):
    channels: ClassVar[int] = 1
    published: ClassVar[tuple[int, int, int]] = (8, 4, 2)

    source: Literal["stripes"]
    image_size: Positive


Dataset = Annotated[
    Stripes | """,
    ),
    "entpruner/data/sources.py": (
        "        case Digits():\n",
        """        case Stripes():
            return prepare_stripes(dataset, out)
""",
    ),
    "entpruner/data/stripes.py": (
        None,
        """
from pathlib import Path

import numpy as np

from entpruner.data.writing import write_store
from entpruner.params.datasets import Stripes


def prepare_stripes(dataset: Stripes, out: Path) -> None:
    rows = np.arange(dataset.image_size) % 2 * 255
    pair = np.stack([np.tile(rows, (len(rows), 1)), np.tile(rows[:, None], (1, len(rows)))]).astype(np.uint8)[:, None]
    splits = {name: (np.tile(pair, (n, 1, 1, 1)), np.tile([0, 1], n)) for name, n in (("train", 4), ("test", 2))}
    write_store(out, splits, class_names=["upright", "level"], source=dataset.model_dump(mode="json"))
""",
    ),
}


def write(copy: Path, recipe: Mapping[str, tuple[str | None, str]]) -> None:
    """Write each text before a line of its file, or at the end of a file that may be new."""
    for name, (before, text) in recipe.items():
        file = copy / name
        if before is None:
            file.write_text((file.read_text() if file.exists() else "") + text)
        else:
            content = file.read_text()
            assert content.count(before) == 1, (name, before)
            kept = "" if text.rstrip().endswith(before.rstrip()) or before.rstrip() in text else before
            file.write_text(content.replace(before, text + kept))


def snakemake(copy: Path, *arguments: str) -> str:
    """What Snakemake prints in the copy."""
    program = str(Path(sys.executable).parent / "snakemake")
    command = [program, *arguments, "--configfile", "params/smoke.yaml", "--cores", "1", "--workflow-profile", "none"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_a_new_rule_is_four_files(copy: Path) -> None:
    write(copy, CENSUS)
    assert len(CENSUS) == 4
    assert "census" in python(copy, "-m", "entpruner.cli", "rule", "--help")
    snakemake(copy, "results/smoke/census/upstream.json")
    assert sum(read_json(copy / "results/smoke/census/upstream.json")) > 100
    assert (copy / "results/smoke/logs/census/upstream.log").exists()
    assert "Nothing to be done" in snakemake(copy, "results/smoke/census/upstream.json")


def test_a_new_data_set_is_three_files(copy: Path) -> None:
    write(copy, STRIPES)
    sources = copy / "entpruner/data/sources.py"
    imported = "from entpruner.data.stripes import prepare_stripes\nfrom entpruner.params.datasets import Stripes, "
    sources.write_text(sources.read_text().replace("from entpruner.params.datasets import ", imported))
    study = yaml.safe_load((copy / "params/smoke.yaml").read_text())
    study["datasets"]["upstream"] = {"source": "stripes", "image_size": 8}
    (copy / "params/smoke.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    snakemake(copy, "results/smoke/data/upstream/manifest.json")
    manifest = read_json(copy / "results/smoke/data/upstream/manifest.json")
    assert manifest["class_names"] == ["upright", "level"]
    assert '"stripes"' in python(copy, "-m", "entpruner.cli", "params", "schema")
