"""The command line: what it refuses, in one line and without a traceback, and what ``params`` says."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from entpruner import cli
from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.params.datasets import Digits
from entpruner.params.files import read_study

PARAMS = Path(__file__).parents[1] / "params"
GOOD = json.dumps({"dataset": {"source": "digits", "classes": [0, 1]}})


class Settings(Frozen):
    dataset: Digits


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the command ``data`` was called with; it does nothing."""
    calls: list[Any] = []

    def run(settings: Settings, *, out: Path, extra: Path | None) -> None:
        calls.append((settings, out, extra))

    stub_module(monkeypatch, run)
    return calls


def stub_module(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    stub = ModuleType("entpruner.commands.data", "Prepare a data set.")
    stub.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, stub.__name__, stub)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that fails."""
    assert cli.main(arguments) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    (line,) = shown.err.splitlines()
    return line


def test_a_rule_gets_its_settings_and_paths(ran: list[Any], tmp_path: Path) -> None:
    assert cli.main(["rule", "data", "--settings", GOOD, "--out", str(tmp_path)]) == 0
    assert ran == [(Settings(dataset=Digits(source="digits", classes=(0, 1))), tmp_path, None)]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ('{"dataset": {"source": "digits", "clases": [1]}}',
         "entpruner: data --settings.dataset.clases: Extra inputs are not permitted"),
        ('{"seed": 1}',
         "entpruner: data --settings.dataset: Field required; --settings.seed: Extra inputs are not permitted"),
        ("{", "entpruner: data --settings: Invalid JSON: EOF while parsing an object at line 1 column 1"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_are_refused(
    ran: list[Any], capsys: pytest.CaptureFixture[str], settings: str, line: str
) -> None:
    assert refused(capsys, "rule", "data", "--settings", settings, "--out", "x") == line
    assert ran == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["dta"], ["rule", "dta"], ["rule", "data", "--out", "x"], ["rule", "data", "--settings", GOOD], ["params"]],
)
def test_a_command_line_that_is_not_whole_shows_the_usage(
    ran: list[Any], capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("usage: entpruner")
    assert ran == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("store: damaged; prepare it again"), "entpruner: store: damaged; prepare it again"),
        (PermissionError(13, "Permission denied", "results"),
         "entpruner: [Errno 13] Permission denied: 'results'; check the path, its rights and the disk"),
        (OSError(28, "No space left on device"),
         "entpruner: [Errno 28] No space left on device; check the path, its rights and the disk"),
    ],
)  # fmt: skip
def test_what_a_user_can_put_right_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    def run(settings: Settings, *, out: Path) -> None:
        raise error

    stub_module(monkeypatch, run)
    assert refused(capsys, "rule", "data", "--settings", GOOD, "--out", "x") == line


@pytest.mark.parametrize("name", ["snakemake", "snakemake.api"])
def test_a_library_of_an_extra_is_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(settings: Settings, *, out: Path) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    stub_module(monkeypatch, run)
    said = f"entpruner: {name} is not installed; run: pip install 'entpruner[workflow]'"
    assert refused(capsys, "rule", "data", "--settings", GOOD, "--out", "x") == said


def test_a_programming_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(settings: Settings, *, out: Path) -> None:
        raise ZeroDivisionError

    stub_module(monkeypatch, run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["rule", "data", "--settings", GOOD, "--out", "x"])


def test_the_first_screen_shows_what_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--help"])
    assert not stopped.value.code
    shown = capsys.readouterr().out
    listed = {line.split()[0] for line in shown.splitlines() if line.startswith("  ")}
    people = {"score", "prune", "sample", "export", "params", "plan", "doctor", "warm", "verify", "trace", "expect"}
    assert listed - {"-h,", "--version", "--completion"} == people
    assert len(shown.splitlines()) <= 24
    assert max(map(len, shown.splitlines())) <= 80


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert re.fullmatch(r"entpruner \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["scroe", "model.pt"], "did you mean score?"),
        (["sample", "model.pt", "--out", "x", "--sampels", "3"], "did you mean --samples?"),
        (["prune", "model.pt", "photos", "--schedule", "linaer"], "did you mean linear?"),
        (["params", "chekc", "x.yaml"], "did you mean check?"),
        (["params", "check", "x.yaml", "--dry-run"], "unrecognized arguments: --dry-run"),
    ],
)
def test_a_misspelt_word_is_answered_with_the_nearest(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(given)
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"{said}\n")


def test_help_loads_no_command() -> None:
    """Which takes longer than all else that it does."""
    program = "import sys; from entpruner import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    program += "sys.exit(bool({'pydantic', 'numpy', 'yaml'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize("name", [name for group in cli.COMMANDS.values() for name in group])
def test_every_command_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert f"example:\n  entpruner {name} " in capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--completion", shell])
    assert not stopped.value.code
    script = capsys.readouterr().out
    assert "--adapt-steps" in script and "verify" in script


def test_a_reader_who_has_seen_enough_ends_a_command_silently() -> None:
    program = f"{sys.executable} -m entpruner.cli params schema | head -1"
    run = subprocess.run(program, shell=True, capture_output=True, text=True, check=False, cwd=PARAMS.parent)
    assert (run.stdout, run.stderr) == ("{\n", "")


def test_quiet_says_results_and_problems_only_and_verbose_where_they_arose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = str(tmp_path / "nowhere")
    levels = [logging.getLogger(name).level for name in (None, "entpruner")]
    for how, times in (("--quiet", 0), ("--verbose", 1)):
        assert cli.main(["score", nowhere, nowhere, "--out", "x", "--process", "flow", how]) == 1
        assert len([record for record in caplog.records if record.levelno == logging.INFO]) == times
        assert "no such file" in capsys.readouterr().err
    assert "Traceback" in caplog.text
    for name, level in zip((None, "entpruner"), levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_another_checkout_s_code_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "entpruner/cli").mkdir(parents=True)
    (tmp_path / "entpruner/cli/__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["params", "check", str(PARAMS / "smoke.yaml")]) == 0
    [line] = capsys.readouterr().err.splitlines()
    assert "the code that runs is" in line and "not this folder's" in line


def test_params_check_is_silent_on_a_sound_study_and_tells_all_that_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(PARAMS / "smoke.yaml")
    assert cli.main(["params", "check", good]) == 0
    assert capsys.readouterr() == ("", "")
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("pruning: {stagse: 3}\nscoring: {draws: none}\n")
    assert cli.main(["params", "check", good, str(overlay)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert "pruning.stagse" in err and "scoring.draws" in err


def test_params_show_prints_the_merged_study_as_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("pruning: {stages: 1}\n")
    files = [PARAMS / "smoke.yaml", overlay]
    assert cli.main(["params", "show", *map(str, files)]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown == read_study(files).model_dump(mode="json")
    assert shown["pruning"] == {"stages": 1, "fraction": 0.5, "at": 1, "lookahead": 2, "tie": "more", "rerank": False,
                                    "measured_on": "average",
                                "weights": {"ntk": 1.0, "zico": 1.0}}  # fmt: skip


def test_params_schema_prints_the_file_that_editors_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["params", "schema"]) == 0
    assert capsys.readouterr().out == (PARAMS / "schema.json").read_text()


def test_a_params_file_that_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(capsys, "params", "show", "nowhere.yaml").startswith("entpruner: nowhere.yaml: ")
