"""``entpruner doctor``: what is wrong with a folder of results is said, and only if it is asked to is it mended."""

from pathlib import Path

import pytest

from entpruner.cli import main
from entpruner.system.files import whole_folder, write_json
from entpruner.system.noting import Written, noted


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for name in ("pretrain/sit-s0", "arms/full-s0/final"):
        with whole_folder(Path("results/tiny") / name) as folder:
            (folder / "model.safetensors").write_bytes(bytes(100))
            write_json(folder / "model.json", {"depth": 3})
    write_json(Path("results/tiny/arms/full-s0/metrics.json"), {"fd": 1.0})
    return Path("results/tiny")


def doctor(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str]]:
    code = main(["doctor", *map(str, arguments)])
    return code, capsys.readouterr().out.splitlines()


def test_of_whole_results_it_says_nothing(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(capsys, study) == (0, [])


def test_what_is_wrong_is_said_and_mended_when_asked(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = study / "pretrain/sit-s0/model.safetensors"
    weights.write_bytes(bytes(99) + b"\1")
    (study / "arms/full-s0/final/notes.txt").touch()
    (study / "arms/full-s0/metrics.json").write_text("{")
    for left in ("arms/full-s0/stage1.partial", "arms/full-s0/final.resume", "arms/full-s0/stage2.resume"):
        (study / left).mkdir()
    for lock in (".snakemake/locks/0.output.lock", ".snakemake/alive"):
        Path(lock).parent.mkdir(parents=True, exist_ok=True)
        Path(lock).touch()
    temporary = Path.cwd() / "temporary/entpruner-x"
    temporary.mkdir(parents=True)
    (temporary / "held").touch()
    wrong = [
        f"{study}/arms/full-s0/final.resume: checkpoints of final, which is finished",
        f"{study}/arms/full-s0/stage1.partial: half-written, by a command that was killed",
        ".snakemake/locks/0.output.lock: a lock of a run that was killed",
        f"{temporary}: a temporary folder of a process that was killed",
        f"{study}/arms/full-s0/metrics.json: not JSON (Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1))",
        f"{study}/arms/full-s0/final/notes.txt: not from here: no command wrote it",
        f"{weights}: has changed since it was written",
    ]
    assert doctor(capsys, study) == (1, wrong)
    assert doctor(capsys, study) == (1, wrong)  # it has changed nothing
    code, lines = doctor(capsys, study, "--mend")
    assert (code, lines) == (0, [line if "notes.txt" in line else f"{line}; deleted" for line in wrong])
    assert doctor(capsys, study) == (0, [wrong[5]])
    assert not weights.parent.exists() and (study / "arms/full-s0/stage2.resume").exists()


def test_a_file_that_is_missing_and_checksums_that_are_damaged(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / "pretrain/sit-s0/model.json").unlink()
    (study / "arms/full-s0/final/.checksums").write_text("{")
    code, lines = doctor(capsys, study)
    assert code == 1
    assert lines == [
        f"{study}/arms/full-s0/final/.checksums: damaged",
        f"{study}/pretrain/sit-s0/model.json: missing",
    ]


def test_a_whole_folder_in_which_a_store_was_made_first(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of samples: the store's own checksums were replaced by those of the folder, which name them."""
    samples = study / "arms/full-s0/samples"
    with noted([Written(samples, "*.json")]), whole_folder(samples) as folder:
        with whole_folder(folder) as store:
            write_json(store / "manifest.json", {"count": 1})
        write_json(folder / "timing.json", {"seconds": 1.0})
    assert doctor(capsys, study) == (0, [])
    (samples / "timing.json").write_text("{}")
    assert doctor(capsys, study) == (1, [f"{samples}/timing.json: has changed since it was written"])
    assert doctor(capsys, study, "--mend")[0] == 0
    assert not samples.exists()


def test_of_files_that_commands_wrote_one_by_one_those_that_changed_are_found(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arm = study / "arms/full-s0"
    with noted([Written(arm, "*.json"), Written(study, "*.html")]):
        for name in ("metrics.json", "cut-metrics.json", "gone.json"):
            write_json(arm / name, {"fd": 1.0})
        (study / "index.html").write_text("<p>1.0</p>")
    (arm / "gone.json").unlink()  # as Snakemake deletes what a job is to make again
    (arm / "mine.json").write_text("{}")
    assert doctor(capsys, study) == (0, [])
    (arm / "metrics.json").write_text('{\n "fd": 7.0\n}\n')
    file = study / ".checksums"
    file.write_text(file.read_text().replace("by itself", "by itsalf"))
    wrong = [f"{study}/.checksums: damaged", f"{arm}/metrics.json: has changed since it was written"]
    assert doctor(capsys, study) == (1, wrong)
    assert doctor(capsys, study, "--mend") == (0, [f"{line}; deleted" for line in wrong])
    assert doctor(capsys, study) == (0, [])
    assert sorted(path.name for path in arm.iterdir()) == [".checksums", "cut-metrics.json", "final", "mine.json"]
    assert sorted(path.name for path in study.iterdir()) == ["arms", "pretrain"]


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path / "nowhere")]) == 1
    assert (
        capsys.readouterr().err
        == f"entpruner: {tmp_path / 'nowhere'}: no folder of results; give one, such as results/digits\n"
    )
