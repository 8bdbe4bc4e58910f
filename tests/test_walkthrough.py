"""What the tutorial and the README tell a reader to type is typed here, on studies and networks that are tiny.

The set-up and a whole study (`make smoke`) and `make verify` are run by `.ci/run`.
"""

import contextlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from snakemake_runs import ROOT
from test_own_model import PARAMS, draw, network

from entpruner.cli import main
from entpruner.params.backbones import Architecture

sys.path.insert(0, str(ROOT / "docs"))

from notebook import NOTEBOOK, PAGE, notebook

TINY = {  # what the tutorial says -> what is done here
    "snakemake ": "snakemake --configfile params/smoke.yaml ",
    "results/digits": "results/smoke",
    "{steps: 300, learning_rate: 1.0e-3, warmup_steps: 20, decay: cosine}": "{steps: 8, batch_size: 8}",
    "{samples: 25, flow: {name: heun, steps: 12}}": "{samples: 5, flow: {name: heun, steps: 2}}",
}
SET_UP = "make smoke"


def test_the_notebook_is_the_tutorial() -> None:
    assert NOTEBOOK.read_text() == notebook(PAGE.read_text()), "run: python docs/notebook.py"


@pytest.mark.slow
def test_the_notebook_s_cells_go_from_nothing_to_a_pruned_model_with_pictures(tmp_path: Path) -> None:
    """Each cell as Jupyter's magics would do it, in a folder where all but the results is the repository's."""
    for item in ROOT.iterdir():
        if item.name not in ("results", "tutorial", ".snakemake", ".git"):
            (tmp_path / item.name).symlink_to(item)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    written = json.loads(NOTEBOOK.read_text())["cells"]
    begin, *cells = ["".join(cell["source"]) for cell in written if cell["cell_type"] == "code"]
    assert begin.startswith("import os\n")
    replaced = set()
    for cell in cells:
        for said, done in TINY.items():
            replaced |= {said} if said in cell else set()
            cell = cell.replace(said, done)
        magic, _, text = cell.partition("\n")
        if magic == "%%bash":
            given = {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
            if text != SET_UP:
                subprocess.run(["bash", "-e", "-c", text], cwd=tmp_path, env=given, check=True)
        else:
            (tmp_path / magic.removeprefix("%%writefile ")).write_text(text + "\n")
    assert replaced == TINY.keys()
    for picture in ("before", "after"):
        assert (tmp_path / "tutorial" / picture / "grid.png").stat().st_size > 0
    assert len(json.loads((tmp_path / "tutorial/pruned/final/model.json").read_text())["kept_blocks"]) == 2


@pytest.mark.usefixtures("process_settings")
def test_the_readme_prunes_a_model_of_one_s_own(tmp_path: Path) -> None:
    """By its commands, with settings that train for a few steps, on a network of two blocks of a published width."""
    shape = {"depth": 2, "hidden_size": 384, "num_heads": 6, "patch_size": 4, "input_size": 8}
    torch.save(network(Architecture(**shape, in_channels=3, num_classes=5)).state_dict(), tmp_path / "model.pt")
    draw(tmp_path / "photos", *(f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(4)))
    (tmp_path / "tiny.yaml").write_text(PARAMS.replace("pruning: {stages: 2}", "pruning: {stages: 1}"))
    lines = re.findall(r"^    entpruner (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["score", "prune", "sample"]
    with contextlib.chdir(tmp_path):
        for line in lines:
            assert main([*shlex.split(line), "--params", "tiny.yaml"]) == 0
    assert json.loads((tmp_path / "pruned/final/model.json").read_text())["kept_blocks"] in ([0], [1])
    assert (tmp_path / "samples/grid.png").exists()
