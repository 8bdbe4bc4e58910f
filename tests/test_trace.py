"""From a cell back to its files: value, seed, settings, kept blocks, code, commit, command."""

from pathlib import Path
from typing import Any

import pytest
from small_study import ROW, write_table

from entpruner.cli import main
from entpruner.system.files import write_json

OTHER = ("full", "dit", "downstream", "–")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = {OTHER: {"distance": (4.5, 5.5), "macs": 1000, "precision": (0.5, 0.25), "parameters": 9},
            ROW: {"distance": (1.5, 2.5), "macs": 1000, "recall": (None, 0.5)}}  # fmt: skip
    write_table(tmp_path / "results/published/digits", "table1", rows, seeds=(0, 1))
    return tmp_path


def traced(capsys: Any, *arguments: str) -> str:
    assert main(["trace", *arguments]) == 0
    return capsys.readouterr().out


def refused(capsys: Any, *arguments: str) -> str:
    assert main(["trace", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_cell_is_followed_to_its_files_and_their_makers(here: Path, capsys: Any) -> None:
    said = traced(capsys, "table1", "1", "distance")
    folder = "results/digits/arms/full-dit-downstream-–-s1"
    assert said.startswith("table1, row 1, distance: full · dit · downstream · –\n5.0 ± 0.7071")
    for line in ("seed: 0", "seed: 1", "/metrics.json: {fd_classifier: 4.5}",
                 f"{folder}/metrics.json: {{fd_classifier: 5.5}}", "blocks: [0, 2]", "code: c0de", "commit: abc123",
                 "finetune: {steps: 600}"):  # fmt: skip
        assert line in said
    assert said.rstrip().endswith(f"{folder}/metrics.json") and "\nmade by: snakemake --cores all " in said


@pytest.mark.parametrize("column", ["fd", "FD", "fd_classifier", "fd_classifier ↓", "fd_cl", "distance", "dist"])
def test_a_column_is_known_by_name_heading_and_beginning(here: Path, capsys: Any, column: str) -> None:
    assert "row 1, distance: " in traced(capsys, "table1", "1", column)


def test_blocks_are_traced_to_the_networks_card(here: Path, capsys: Any) -> None:
    said = traced(capsys, "table1", "2", "blocks")
    assert "final/model.json" in said and "kept_blocks" in said
    assert "not here: " in said and "final/model.json is missing" in " ".join(said.split())  # it was not shipped


def test_a_file_that_has_been_made_anew_without_the_number_says_so(here: Path, capsys: Any) -> None:
    write_json(here / "results/published/digits/arms/full-dit-downstream-–-s1/metrics.json", {"kid": 0.1})
    said = traced(capsys, "table1", "1", "distance")
    assert "{fd_classifier: 4.5}" in said and "metrics.json has no such key any more" in " ".join(said.split())


def test_a_cell_without_a_number_says_so(here: Path, capsys: Any) -> None:
    assert "no number" in traced(capsys, "table1", "2", "recall")


def test_a_run_of_ones_own_comes_before_the_published_one(here: Path, capsys: Any) -> None:
    write_table(here / "results/digits", "table1", {ROW: {"distance": 9.75}})
    assert "\n9.75\n" in traced(capsys, "table1", "1", "fd")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table5", "1", "fd"), "no table5; there are table1"),
        (("table1", "3", "fd"), "no row 3; there are 1 full dit downstream –; 2 EntPruner sit downstream 50%"),
        (("table1", "0", "fd"), "no row 0"),
        (("table1", "1", "beauty"), "column beauty is none; there are blocks, distance, macs, parameters, precision"),
        (("table1", "1", "p"), "column p could be parameters, precision"),
        (("table1", "1", "fd", "--study", "birds"), "results/birds and results/published/birds: no tables"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    here: Path, capsys: Any, arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(capsys, *arguments)
