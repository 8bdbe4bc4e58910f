"""A study of one's own without writing YAML: what ``params init`` and ``params grid`` write, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from snakemake_runs import planned, snakemake

from entpruner.cli import main
from entpruner.data.sources import prepare
from entpruner.data.store import Store
from entpruner.params.datasets import ClassFolders
from entpruner.params.files import read_study

SMOKE = Path(__file__).parents[1] / "params/smoke.yaml"


def photos(folder: Path, *classes: str, each: int = 20, size: int = 20) -> Path:
    random = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = random.integers(0, 256, (size, size + 3, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["params", *arguments]) == 1
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(("classes", "source"), [
    (("cat", "dog"), "class_folders"),
    (("train/cat", "train/dog", "val/cat", "val/dog"), "image_folder"),
])  # fmt: skip
def test_a_written_study_plans_all_its_rules_without_an_edit(
    classes: tuple[str, ...], source: str, tmp_path: Path
) -> None:
    images, file = photos(tmp_path / "photos", *classes), tmp_path / "my.yaml"
    assert main(["params", "init", str(images), "--out", str(file)]) == 0
    study = read_study([file])
    upstream = study.datasets["upstream"]
    assert (study.study, upstream.source, upstream.image_size) == ("my", source, 16)
    assert study.sampling.samples % 2 == 0
    jobs = planned(snakemake(tmp_path, "--dry-run", "--configfile", str(file)))
    assert {"data", "pretrain", "score", "prune", "recover", "evaluate", "table", "figure"} <= jobs.keys()


def test_the_images_that_are_held_out_follow_from_their_names(tmp_path: Path) -> None:
    images = photos(tmp_path / "photos", "cat", "dog", each=10, size=8)
    (images / "dog/0.png").unlink()
    dataset = ClassFolders(source="class_folders", path=str(images), image_size=8, test_fraction=0.25)
    for out in ("one", "two"):
        prepare(dataset, tmp_path / out)
    one, two = (Store.open(tmp_path / out, verify=True) for out in ("one", "two"))
    assert np.array_equal(one.images, two.images)
    assert [np.bincount(one.split(name).labels).tolist() for name in ("train", "test")] == [[8, 7], [2, 2]]


@pytest.mark.parametrize(("made", "says"), [
    ({}, "no .jpg or .png in its folders; sort images as <class>/*.jpg or .png"),
    ({"cat/notes.txt": b"x"}, "no .jpg or .png in its folders"),
    ({"cat/a.png": b"x", "dog/b.png": b"y"}, "'cat/a.png': not a whole JPEG or PNG image; replace or remove it"),
])  # fmt: skip
def test_a_folder_without_images_is_refused_in_a_line(
    made: dict[str, bytes], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    for name, content in made.items():
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    assert says in refused(capsys, "init", str(tmp_path / "photos"), "--out", str(tmp_path / "my.yaml"))
    assert not (tmp_path / "my.yaml").exists()


def test_too_few_images_or_classes_or_a_bad_name_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, few = photos(tmp_path / "one", "cat", each=2), photos(tmp_path / "few", "cat", "dog", each=2)
    out = str(tmp_path / "my.yaml")
    assert "images of one class; allowed: two or more" in refused(capsys, "init", str(one), "--out", out)
    assert "2 images would be held out; allowed: 8 or more" in refused(capsys, "init", str(few), "--out", out)
    assert "the name of a study" in refused(capsys, "init", str(few), "--out", str(tmp_path / "My-study.yaml"))
    assert "no such file or folder" in refused(capsys, "init", str(tmp_path / "none"), "--out", out)
    Path(out).touch()
    assert "is there already" in refused(capsys, "init", str(photos(tmp_path / "x", "a", "b")), "--out", out)


def test_a_grid_is_an_arm_for_each_combination(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    given = ["--set", "pruning.stages=1,2", "--set", "scoring.estimator=diagonal"]
    assert main(["params", "grid", str(SMOKE), *given, "--out", str(file)]) == 0
    study = read_study([SMOKE, file])
    names = ("entpruner_stages_1_estimator_diagonal", "entpruner_stages_2_estimator_diagonal")
    assert study.tables["entpruner_grid"].arms == ("entpruner", *names)
    for name, stages in zip(names, (1, 2), strict=True):
        arm = study.arms[name]
        assert arm.override.pruning == {"stages": stages} and arm.override.scoring == {"estimator": "diagonal"}
        assert (arm.criterion, arm.ratio) == ("ced", 0.5)
    assert set(yaml.safe_load(file.read_text())) == {"arms", "tables"}


@pytest.mark.parametrize(("given", "says"), [
    ("pruning.stagse=1", "override.pruning.stagse: got an unknown key; allowed: the keys stages"),
    ("pruning.stagse=1", "did you mean 'stages'?"),
    ("prunning.stages=1", "allowed: SECTION.KEY=VALUE,VALUE with a section of scoring"),
    ("pruning.stages", "allowed: SECTION.KEY=VALUE,VALUE"),
    ("pruning.stages=many", "override.pruning.stages"),
    ("pruning.stages=[1", "values that are YAML"),
])  # fmt: skip
def test_a_grid_of_a_wrong_key_is_refused_in_a_line(
    given: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "grid.yaml"
    assert says in refused(capsys, "grid", str(SMOKE), "--set", given, "--out", str(out))
    assert not out.exists()
    unknown = ("--arm", "entprune", "--set", "pruning.stages=1", "--out", str(out))
    assert "did you mean 'entpruner'?" in refused(capsys, "grid", str(SMOKE), *unknown)
