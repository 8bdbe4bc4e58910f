"""Verdicts: what is expected is generated from what was published, and every cell is held against it."""

import os
import signal
import sys
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_study import ROW, record, write_table
from snakemake_runs import environment, snakemake_in_a_fork, wait_for

from entpruner.cli import main
from entpruner.errors import UserError
from entpruner.layout import Layout
from entpruner.reporting.expected import MARGIN, Expected, expect, rounded_up
from entpruner.reporting.processors import Machine, Processors, compared
from entpruner.reporting.publish import machine
from entpruner.reporting.recorded import read_tables
from entpruner.reporting.records import Records
from entpruner.reporting.verdicts import Verdict, exit_code, report, verdicts
from entpruner.reporting.verify import forecast, link, run
from entpruner.system.files import read_json, write_json

OTHER = ("LD-Pruner", "sit", "downstream", "50%")
SEEDS = (0, 1, 2)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two rows of three seeds."""
    folder = tmp_path / "digits"
    rows = {
        ROW: {"distance": (4.0, 5.0, 6.0), "kid": (0.0, 0.1, -0.1), "macs": 1000, "speedup": 1.5},
        OTHER: {"distance": (8.0, 10.0, 12.0), "kid": (0.0, 0.2, -0.2), "macs": 1000, "speedup": 1.5},
    }
    write_table(folder, "table1", rows, SEEDS)
    return folder


def processors(**values: tuple[tuple[float, float], ...]) -> Processors:
    """What two processors gave, by column."""
    named = {column: {str(i): pair for i, pair in enumerate(pairs)} for column, pairs in values.items()}
    one, other = (Machine(device=(name,), torch=("2.1",), commit=("abc",)) for name in ("one", "other"))
    return Processors(published=one, again=other, values=named)


MEASURED = processors(distance=((4.0, 4.0),) * 5 + ((10.0, 10.08),), kid=((0.0, 0.001),) * 5 + ((0.1, 0.098),))
"""The distance differs by 0.8 % at most, and KID by 0.002."""


def expected_of(study: Path, name: str = "digits", measured: Processors | None = MEASURED) -> Expected:
    file = study.parent / "expected.yaml"
    file.write_text(expect(study, measured))
    return Expected.read(file, name)


def judged(study: Path, expected: Expected) -> dict[tuple[str, str], Verdict]:
    """Verdicts by method and column."""
    found = verdicts(expected, read_tables(study / "tables"))
    return {(verdict.row.split(" · ")[0], verdict.column): verdict for verdict in found}


def repeated(tmp_path: Path, seeds: tuple[int, ...] = SEEDS, **cells: Any) -> Path:
    """The first row alone, measured again."""
    folder = tmp_path / "again/digits"
    write_table(folder, "table1", {ROW: cells}, seeds)
    return folder


# -------------------------------------------------------------------------------------------------------- tolerances


def test_a_tolerance_is_twice_the_largest_difference_between_processors(study: Path) -> None:
    expected = expected_of(study).tables["table1"]
    for row, value in zip(expected, (5.0, 10.0), strict=True):
        assert row.cells["distance"].tolerance == pytest.approx(2 * 0.008 * value, rel=0.01)  # rounded up
        assert row.cells["kid"].tolerance == pytest.approx(2 * 0.002, rel=0.01)


def test_a_tolerance_grows_where_few_numbers_were_compared(study: Path) -> None:
    few = processors(distance=((10.0, 10.02),), kid=((0.1, 0.1),))  # one number, where the table has two rows of three
    row, _ = expected_of(study, measured=few).tables["table1"]
    assert row.cells["distance"].tolerance == pytest.approx(2 * 0.002 * 2 * 5.0, rel=0.01)
    assert row.cells["kid"].tolerance is None  # one number that does not differ says nothing of the others
    assert few.differences()["distance"].allowed(1) == pytest.approx(2 * 0.002)


def test_where_processors_agree_the_very_same_number_is_expected(tmp_path: Path) -> None:
    write_table(tmp_path / "digits", "table1", {ROW: {"training_flops": 5e12}})
    measured = processors(training_flops=((1e12, 1e12), (2e12, 2e12)))
    (row,) = expected_of(tmp_path / "digits", measured=measured).tables["table1"]
    assert row.cells["training_flops"].tolerance == 0


def machine_of(device: str) -> dict[str, Any]:
    return record(device=device)


def test_processors_are_compared_by_the_numbers_that_tables_show(study: Path, tmp_path: Path) -> None:
    again = tmp_path / "again/digits"
    write_table(again, "table1", {ROW: {"distance": (4.0, 5.05, 6.0), "kid": (0.0, 0.1, -0.1), "macs": 999}}, SEEDS)
    for folder, device in ((study, "one"), (again, "other")):
        write_json(folder / "arms/full-s0/timing.json", machine_of(device))
    found = compared(study, again)
    assert (found.published.device, found.again.device) == (("one",), ("other",))
    distances = found.differences()["distance"]  # of the three arms that both runs have
    assert len(distances.sizes) == 3 and distances.largest == pytest.approx(0.01) and distances.relative
    assert found.differences().keys() == {"distance", "kid"}
    assert "median differs by 0.00% and the largest by 1.00%" in distances.words

    write_json(again / "arms/full-s0/timing.json", machine_of("one"))
    with pytest.raises(UserError, match=r"was made on one, as .* was; another processor is needed to compare"):
        compared(study, again)
    with pytest.raises(UserError, match=r"has no number that .* has in a table; run some of its arms first"):
        compared(study, tmp_path / "nowhere")


def test_a_network_that_lost_another_block_is_named_and_not_compared(study: Path, tmp_path: Path) -> None:
    again = tmp_path / "again/digits"
    write_table(again, "table1", {ROW: {"distance": (4.0, 5.05, 7.0), "kid": (0.0, 0.1, -0.1), "macs": 999}}, SEEDS)
    arms = sorted(path.parent.name for path in again.glob("arms/*/metrics.json"))
    for folder, device, blocks in ((study, "one", [1, 6]), (again, "other", [3, 6])):
        write_json(folder / "arms/full-s0/timing.json", machine_of(device))
        for arm in arms:
            kept = blocks if arm == arms[2] else [0, 6]
            write_json(Layout.at(folder).final(arm).files["card"], {"kept_blocks": kept})
    found = compared(study, again)
    assert found.other_blocks == {arms[2]: ((1, 6), (3, 6))}
    assert found.differences()["distance"].largest == pytest.approx(0.01)  # the third differs by more
    assert Processors.model_validate_json(found.model_dump_json()) == found


def test_a_damaged_comparison_of_processors_is_refused(study: Path, tmp_path: Path) -> None:
    (tmp_path / "expected.processors.json").write_text("{")
    assert main(["expect", str(study), "--out", str(tmp_path / "expected.yaml")]) == 1


def test_counts_are_exact_and_times_are_not_judged(study: Path) -> None:
    write_table(study, "table2", {ROW: {"training_seconds": (30.0, 31.0, 32.0), "steps": 600}}, SEEDS)
    tables = expected_of(study).tables
    cells = tables["table1"][0].cells | tables["table2"][0].cells
    assert [cells[column].tolerance for column in ("blocks", "macs", "steps")] == [0, 0, 0]
    assert cells["training_seconds"].tolerance is None
    assert cells["speedup"].tolerance == rounded_up(0.2 + MARGIN * 1.5)  # the further quartile


def test_the_file_says_how_it_was_made_and_keeps_every_bit(study: Path) -> None:
    text = expect(study, MEASURED)
    made_by = " ".join(text.replace("\n#", " ").split())
    assert f"entpruner expect {study} --out params/expected/digits.yaml" in made_by
    assert (
        "Here distance: 6 numbers, of which the median differs by 0.00% and the largest by 0.80%; the tables show 2"
        in made_by
    )
    assert "the differences between two processors (one and other) at the same seeds" in made_by
    (row,) = [row for row in yaml.safe_load(text)["tables"]["table1"] if row["method"] == "EntPruner"]
    assert row["seeds"] == [0, 1, 2]
    assert row["cells"]["distance"]["value"] == (4.0 + 5.0 + 6.0) / 3


@pytest.mark.parametrize("value", [1.0, 0.123456, 99.95, 4.441e-7, 1234567.0])
def test_tolerances_are_rounded_up(value: float) -> None:
    assert value <= rounded_up(value) <= value * 1.01


def test_rows_that_cannot_be_told_apart_are_refused(study: Path) -> None:
    file = study / "tables/table1.provenance.json"
    file.write_text(file.read_text().replace("LD-Pruner", "EntPruner"))
    with pytest.raises(UserError, match="two rows EntPruner, sit, downstream, 50%; give their arms other labels"):
        expect(study, None)


def test_a_column_without_a_rule_is_refused(study: Path) -> None:
    write_table(study, "table9", {ROW: {"beauty": (1.0, 2.0, 3.0)}}, SEEDS)
    with pytest.raises(UserError, match="table9: how to judge beauty is not known"):
        expect(study, None)


def test_nothing_is_expected_of_a_study_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no table's provenance"):
        expect(tmp_path, None)


# ---------------------------------------------------------------------------------------------------------- verdicts


def test_the_same_numbers_are_reproduced(study: Path) -> None:
    found = judged(study, expected_of(study))
    assert len(found) == 10  # blocks and four columns, twice
    assert {verdict.word for verdict in found.values()} == {"reproduced"}
    assert found["EntPruner", "distance"].reason == "5, the very same number"


def test_a_cell_is_judged_by_its_tolerance(study: Path, tmp_path: Path) -> None:
    expected = expected_of(study)
    allowed = expected.tables["table1"][0].cells["distance"].tolerance
    assert allowed is not None
    for factor, word in ((0.99, "reproduced"), (1.01, "not reproduced"), (-1.01, "not reproduced")):
        again = repeated(tmp_path, distance=(5.0 + factor * allowed,) * 3, macs=1000, kid=(0.0,) * 3, speedup=1.5)
        verdict = judged(again, expected)["EntPruner", "distance"]
        assert verdict.word == word
        assert f"expected 5 ± {allowed:.3g} of seeds 0, 1, 2" in verdict.reason
    assert "1.01 times the tolerance" in verdict.reason


def test_a_count_that_is_off_by_one_is_not_reproduced(study: Path, tmp_path: Path) -> None:
    again = repeated(tmp_path, macs=1001)
    verdict = judged(again, expected_of(study))["EntPruner", "macs"]
    assert (verdict.word, verdict.reason) == ("not reproduced", "1001, expected exactly 1000")


def test_what_is_expected_and_not_there_is_not_run(study: Path, tmp_path: Path) -> None:
    expected = expected_of(study)
    found = judged(repeated(tmp_path, distance=(4.0, 5.0, 6.0), kid=(None, 0.1, 0.2)), expected)
    assert found["EntPruner", "distance"].word == "reproduced"
    assert found["EntPruner", "kid"].reason == "no number, expected 0"
    assert found["EntPruner", "macs"].reason == "no number, expected 1000"
    assert found["LD-Pruner", "distance"].reason == "the table has no such row"
    assert {found["EntPruner", "macs"].word, found["LD-Pruner", "distance"].word} == {"not run"}
    absent = judged(tmp_path / "nowhere", expected)
    assert {(verdict.word, verdict.reason) for verdict in absent.values()} == {("not run", "there is no such table")}


@pytest.mark.parametrize(
    ("seeds", "named"), [((0,), "seed 0"), ((7, 8, 9), "seeds 7, 8, 9"), ((2, 1, 0), "seeds 2, 1, 0")]
)
def test_a_row_of_other_seeds_is_not_run(study: Path, tmp_path: Path, seeds: tuple[int, ...], named: str) -> None:
    again = repeated(tmp_path, seeds=seeds, distance=(5.0,) * len(seeds))
    verdict = judged(again, expected_of(study))["EntPruner", "distance"]
    assert verdict.word == "not run"
    assert verdict.reason == f"{named} here, expected of seeds 0, 1, 2; run the same"


def test_two_methods_in_each_others_place_are_not_reproduced(study: Path) -> None:
    expected = expected_of(study)
    file = study / "tables/table1.provenance.json"
    swapped = {"EntPruner": "LD-Pruner", "LD-Pruner": "EntPruner"}
    content = read_json(file)
    rows = [row | {"method": swapped[row["method"]]} for row in content["rows"]]
    write_json(file, content | {"rows": rows})
    found = judged(study, expected)
    assert {found[method, "distance"].word for method in swapped} == {"not reproduced"}


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_distance_that_is_off_by_three_percent_is_not_reproduced(study: Path, tmp_path: Path, factor: float) -> None:
    again = repeated(tmp_path, distance=tuple(factor * value for value in (4.0, 5.0, 6.0)))
    assert judged(again, expected_of(study))["EntPruner", "distance"].word == "not reproduced"


def test_shipped_records_must_give_the_very_same_numbers(study: Path) -> None:
    expected = expected_of(study)
    words = {each.word for each in verdicts(expected, read_tables(study / "tables"), shipped=True)}
    assert words == {"rebuilt from shipped records"}
    again = {ROW: {"distance": (4.0, 5.0, 6.001), "kid": (0.0, 0.1, -0.1)}}  # within the tolerance
    write_table(study, "table1", again, SEEDS)
    found = [each for each in verdicts(expected, read_tables(study / "tables"), shipped=True) if each.table == "table1"]
    assert {each.column: each.word for each in found if each.row.startswith("EntPruner")} == {
        "blocks": "rebuilt from shipped records", "distance": "not reproduced", "kid": "rebuilt from shipped records",
        "macs": "not run", "speedup": "not run",
    }  # fmt: skip


def test_what_is_there_and_not_expected_is_undecided(study: Path) -> None:
    expected = expected_of(study)
    write_table(study, "table1", {ROW: {"distance": (4.0, 5.0, 6.0), "recall": (0.5, 0.5, 0.5)}}, SEEDS)
    write_table(study, "table7", {ROW: {"recall": (0.5, 0.5, 0.5)}}, SEEDS)
    found = [each for each in verdicts(expected, read_tables(study / "tables")) if each.column == "recall"]
    assert [(each.table, each.word) for each in found] == [("table1", "undecided"), ("table7", "undecided")]
    assert "nothing is expected of it" in found[0].reason


def test_without_a_spread_only_the_very_same_number_is_reproduced(tmp_path: Path) -> None:
    write_table(tmp_path / "digits", "table1", {ROW: {"precision": 0.9, "training_seconds": 30.0}})
    expected = expected_of(tmp_path / "digits")
    assert {each.word for each in judged(tmp_path / "digits", expected).values()} == {"reproduced"}
    found = judged(repeated(tmp_path, seeds=(0,), precision=0.91, training_seconds=20.0), expected)
    assert found["EntPruner", "precision"].word == "undecided"
    assert found["EntPruner", "training_seconds"].word == "not judged"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["reproduced", "not judged"], 0),
        (["reproduced", "not run"], 2),
        (["undecided"], 2),
        (["not run", "not reproduced", "reproduced"], 1),
        ([], 2),
    ],
)
def test_the_exit_code_tells_the_worst_apart(words: list[Any], code: int) -> None:
    assert exit_code([Verdict("table1", "row", "kid", word, "") for word in words]) == code


def test_the_report_has_a_line_a_cell_and_one_in_sum(study: Path) -> None:
    found = list(verdicts(expected_of(study), read_tables(study / "tables")))
    lines = report("digits", found).splitlines()
    assert lines[0] == "table1 · EntPruner · sit · downstream · 50%"
    assert sum("very same number" in line for line in lines) == len(found) == 10
    assert lines[-1] == "digits: 10 cells and files: 10 reproduced"


# ------------------------------------------------------------------------------------------------------ command line


def test_finished_tables_are_compared_without_building_any(study: Path, tmp_path: Path, capsys: Any) -> None:
    file, tables = tmp_path / "made/expected.yaml", str(study / "tables")
    write_json(file.with_suffix(".processors.json"), MEASURED.model_dump(mode="json"))
    assert main(["expect", str(study), "--out", str(file)]) == 0
    assert main(["verify", "--tables", tables, "--expected", str(file)]) == 0
    again = repeated(tmp_path, distance=(40.0, 50.0, 60.0))
    assert main(["verify", "--tables", str(again / "tables"), "--expected", str(file)]) == 1
    assert main(["verify", "--tables", str(tmp_path / "none"), "--expected", str(file)]) == 2
    assert "10 not run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not there, so nothing says what is expected"),
        ("study: birds\ntables: {}\n", "expectations of study birds, not of digits"),
        ("study: digits\ntables: {table1: [{method: x}]}\n", "tables.table1.0.backbone: Field required"),
        ("study: [", "generate it again"),
    ],
)
def test_expectations_that_do_not_fit_are_refused(
    tmp_path: Path, capsys: Any, content: str | None, message: str
) -> None:
    file = tmp_path / "expected.yaml"
    if content is not None:
        file.write_text(content)
    assert main(["verify", "--tables", str(tmp_path), "--expected", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line and message in line


def test_provenance_that_no_table_left_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "table1.provenance.json", {"rows": [{}]})
    with pytest.raises(UserError, match="not the provenance of a table"):
        read_tables(tmp_path)


# ------------------------------------------------------------------------------------------------------------ depths


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with one published arm, its network not among what is here, and expectations."""
    monkeypatch.chdir(tmp_path)
    published = tmp_path / "results/published/digits"
    write_table(published, "table1", {ROW: {"distance": 5.0}})
    (published / "tables/table1.csv").write_text("a table")
    for path, seconds in {
        "arms/full-s0/final": 30.0, "arms/full-s0/stage1": 20.0, "arms/full-s0/samples": 6.0, "pretrain/dit-s0": 100.0,
    }.items():  # fmt: skip
        write_json(published / path / "timing.json", record(seconds=seconds))
    write_json(published / "arms/full-s0/metrics.timing.json", record(seconds=2.0))
    write_json(published / "cost/dit-downstream.json", {"timing": record(seconds=1.0)})
    write_json(published / "audit/masks/dit-s0.json", {"timing": record(seconds=1000.0)})  # no table needs it
    write_json(published / "arms/full-s0/final/model.json", {})
    write_json(
        published / "machine.json", machine(Records(published)) | {"bytes": {"all": 7_000_000, "measured": 5_000}}
    )
    (tmp_path / "expected.yaml").write_text(expect(published, None))
    return tmp_path


@pytest.mark.parametrize(("depth", "minutes", "megabytes"), [(2, "0.1", "0.005"), (3, "2.6", "7")])
def test_time_and_disk_are_told_from_the_published_records(
    here: Path, depth: int, minutes: str, megabytes: str
) -> None:
    said = forecast(depth, Records(here / "results/published/digits"))
    assert f"{minutes} min of computing (on a processor, when published); {megabytes} MB on disk" in said


def test_without_networks_depth_two_says_how_to_get_them(here: Path, capsys: Any) -> None:
    assert main(["verify", "--depth", "2", "--expected", str(here / "expected.yaml")]) == 2
    said = capsys.readouterr().out
    assert said.startswith("digits, depth 2: samples, ")
    assert "0.1 min of computing (on a processor" in said
    assert "1 trained networks are not in results/digits/arms, as that of full-s0" in said
    assert "make restore STUDY=digits" in said and "make verify DEPTH=3" in said


def test_a_study_that_is_not_published_is_named(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("expected.yaml").write_text("study: digits\ntables: {}\n")
    assert main(["verify", "--expected", "expected.yaml"]) == 1
    assert "results/published/digits: nothing published to verify" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "said"), [(2, "Some of it failed, see above"), (3, "Building table4")])
def test_the_workflow_is_asked_for_the_tables(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, depth: int, said: str
) -> None:
    """By a dry run, which at depth 2 must fail: nothing but the arm's network is here, and no rule may train more."""

    def dry(command: list[str]) -> int:
        line = command[command.index("snakemake") :]
        return snakemake_in_a_fork([line[0], "--dry-run", *line[1:]], environment())

    network = here / "results/digits/arms/full-s0/final/model.safetensors"
    network.parent.mkdir(parents=True)
    network.touch()
    monkeypatch.setattr("entpruner.reporting.verify.run", dry)
    assert main(["verify", "--depth", str(depth), "--expected", str(here / "expected.yaml")]) == 2
    printed = "".join(capfd.readouterr())
    assert f"in results/verify/digits-depth{depth}, which can be deleted" in printed and said in printed
    assert "there is no such table" in printed


def test_depth_two_begins_with_what_was_trained_and_nothing_that_was_measured(here: Path) -> None:
    study = here / "results/digits"
    for file in (
        "data/upstream/images.npy", "arms/full-s0/final/model.safetensors", "arms/full-s0/stage1/model.safetensors",
        "arms/full-s0/samples/images.npy", "arms/full-s0/metrics.json", "cost/dit-downstream.json", "tables/table1.md",
    ):  # fmt: skip
        (study / file).parent.mkdir(parents=True, exist_ok=True)
        (study / file).write_text(file)
    for _ in range(2):  # a second time, what is there stays
        link(2, "digits", here / "work")
    staged = here / "work/results/digits"
    seen = {
        file for file in ("data/upstream", "arms/full-s0/final", "arms/full-s0/stage1") if (staged / file).is_symlink()
    }
    assert seen == {"data/upstream", "arms/full-s0/final", "arms/full-s0/stage1"}
    assert (staged / "arms/full-s0/final/model.safetensors").read_text() == "arms/full-s0/final/model.safetensors"
    assert not any((staged / file).exists() for file in ("arms/full-s0/samples", "arms/full-s0/metrics.json", "cost"))


def test_a_table_whose_documents_are_not_shipped_is_not_run(here: Path, capsys: Any) -> None:
    assert main(["verify", "--expected", str(here / "expected.yaml")]) == 2
    said = capsys.readouterr().out
    assert "table1 is not built: results/published/digits: there is no arms/" in said
    assert "there is no such table" in said and "not built, although it is shipped" in said


def test_what_is_interrupted_is_left_to_end_by_itself(tmp_path: Path) -> None:
    unlocking = (
        "import signal, sys, time, pathlib\n"
        "def leave(*_): time.sleep(1); pathlib.Path('unlocked').touch(); sys.exit(1)\n"
        "signal.signal(signal.SIGINT, leave); pathlib.Path('running').touch(); time.sleep(3600)\n"
    )

    def ask() -> None:
        os.setsid()
        os.chdir(tmp_path)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run([sys.executable, "-c", unlocking])

    program = get_context("fork").Process(target=ask)
    program.start()
    wait_for(lambda: (tmp_path / "running").exists() or not program.is_alive())
    assert program.pid
    os.killpg(program.pid, signal.SIGINT)  # as the terminal's Ctrl-C: to both of them
    program.join()
    assert program.exitcode != 0
    assert (tmp_path / "unlocked").exists()
