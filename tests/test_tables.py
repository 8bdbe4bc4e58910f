"""Tables: every number comes from a file, is printed sensibly, and can be traced back."""

import csv
import json
import math
import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entpruner.errors import UserError
from entpruner.evaluation.intervals import t_interval
from entpruner.params.reporting import ColumnName, Table
from entpruner.reporting.columns import COLUMNS, Cell, si_prefix
from entpruner.reporting.printed import MOST_COLUMNS, latex_escape
from entpruner.reporting.reference import Reference
from entpruner.reporting.results import ArmResult, Document
from entpruner.reporting.tables import ReportTable, build
from entpruner.rules.report import TableSettings
from entpruner.system.files import read_json, write_json

REFERENCE = Path(__file__).parents[1] / "params" / "reference.yaml"
DEFAULT = Table.model_fields["columns"].default


def arm(
    folder: Path,
    seed: int = 0,
    *,
    name: str = "entpruner",
    label: str = "EntPruner",
    schedule: str = "vote",
    ratio: float | None = 0.5,
    backbone: str = "sit",
    depth: int = 12,
    metrics: dict[str, float] | None = None,
    training: dict[str, float] | None = None,
    **others: dict[str, float],
) -> ArmResult:
    """An arm whose files lie under ``folder``: the three that each has, and ``others`` by name."""
    artefact = folder / f"{name}-{ratio}-s{seed}"
    rates = {"fd_classifier_ratio": 2.25, "precision_classifier": 0.875, "recall_classifier": 0.5}
    measured = {"fd_classifier": 12.5 + seed, "kid_classifier": 0.000123456, "agreement": 0.98}
    metrics = metrics or measured | rates
    training = training or {"total_steps": 600, "total_flops": 3.5e13}
    files = {"cost": folder / "cost.json"}
    for document, content in {"metrics": metrics, "training": training, **others}.items():
        files[document] = artefact / f"{document}.json"
        write_json(files[document], content)
    six = {"parameters": 1_234_567, "macs": 98_765_432, "speedup": 1.93, "speedup_quartiles": [1.9, 1.97]}
    write_json(folder / "cost.json", {"blocks": {"6": six}})
    return ArmResult(
        name=name,
        start="adapted",
        artefact=artefact.as_posix(),
        label=label,
        backbone=backbone,
        process="flow",
        data="downstream",
        criterion="ced",
        schedule=schedule,
        ratio=ratio,
        seed=seed,
        depth=depth,
        kept_blocks=(0, 2, 4, 6, 8, 11),
        classes=5,
        network="6",
        documents={key: Document(path.as_posix(), read_json(path)) for key, path in files.items()},
        settings={"finetune": {"steps": 600}},
        code="c0de",
        commit="abc123",
    )


def table(
    results: list[ArmResult],
    name: str = "table1",
    columns: Sequence[ColumnName] = DEFAULT,
    distance: str = "fd_classifier",
) -> ReportTable:
    settings = TableSettings(
        name=name,
        caption="A caption",
        columns=tuple(columns),
        distance=distance,
        command="snakemake --cores all",
        arms=(),
    )
    return build(settings, results, Reference.read(REFERENCE))


def markdown_row(built: ReportTable, row: int = 0) -> dict[str, str]:
    """A row of the table as people read it, without the headings of groups."""
    text = built.printed().markdown()
    lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    rows = [line for line in lines[2:] if any(line[1:])]
    return dict(zip(lines[0], rows[row], strict=True))


def test_markdown_shows_three_digits_units_and_no_command(tmp_path: Path) -> None:
    result = arm(tmp_path)
    built = table([result], columns=["distance", "parameters", "macs", "speedup"])
    assert markdown_row(built) == {
        "method": "EntPruner",
        "removed": "50 %",
        "blocks": "6/12",
        "distance ↓": "12.5",
        "parameters (M)": "1.23",
        "MACs (M)": "98.8",
        "speed-up ↑": "1.93 [1.90, 1.97]",
    }
    assert markdown_row(table([result], columns=["kid"]))["KID ↓"] == "0.000123"
    assert markdown_row(table([result], columns=["training_flops"]))["training (TFLOP)"] == "35.0"
    assert "Every row: 1 seed." in built.printed().notes
    assert built.provenance()["rows"][0]["command"] == f"snakemake --cores all {result.artefact}/metrics.json"


def test_a_page_has_as_many_columns_as_fit_and_names_those_that_only_the_csv_has(tmp_path: Path) -> None:
    built = table([arm(tmp_path), arm(tmp_path, name="linear", metrics={"fd_classifier": 3.0})])
    printed = built.printed()
    assert len(printed.headings) <= MOST_COLUMNS
    assert "MACs: 98.8 in every row." not in printed.notes  # its unit is said
    assert "MACs (M): 98.8 in every row." in printed.notes  # so it needs no column
    assert {"macs", "steps", "kid"} <= built.records()[0].keys()
    wide = table([arm(tmp_path)]).printed()
    assert "Also in table1.csv: recall, agreement, parameters, MACs, speed-up, steps, training." in wide.notes


def test_rows_are_grouped_by_network_in_words_and_by_ratio(tmp_path: Path) -> None:
    arms = [arm(tmp_path, name=name, label=name, backbone=net, ratio=ratio)
            for name in ("a", "b") for net in ("dit", "sit") for ratio in (0.3, 0.5)]  # fmt: skip
    groups = table(arms).printed().groups
    assert [group.title for group in groups] == ["DiT, downstream", "SiT, downstream"]
    for group in groups:
        assert [line.cells[:2] for line in group.lines] == [("a", "30 %"), ("b", "30 %"), ("a", "50 %"), ("b", "50 %")]


def test_the_best_is_marked_only_where_intervals_allow_it(tmp_path: Path) -> None:
    def rows(name: str, *distances: float) -> list[ArmResult]:
        return [arm(tmp_path, seed, name=name, label=name, metrics={"fd_classifier": d, "agreement": 0.9})
                for seed, d in enumerate(distances)]  # fmt: skip

    near, far, wide = rows("near", 1.0, 1.1), rows("far", 9.0, 9.1), rows("wide", 1.0, 9.0)
    marked = [line.best for line in table(near + far).printed().groups[0].lines]
    assert marked == [{3}, set()]
    assert "**1.05 [0.57, 1.92]**" in table(near + far).printed().markdown()
    for others in (wide, rows("single", 9.0)):
        assert not any(line.best for line in table(near + others).printed().groups[0].lines)


def test_seeds_become_one_row_with_the_interval_of_their_mean_and_one_seed_has_none(tmp_path: Path) -> None:
    built = table([arm(tmp_path, seed) for seed in range(3)])
    row, record = markdown_row(built), built.records()[0]
    assert row["distance ↓"] == "13.5 [11.2, 16.2]"
    assert "Every row: 3 seeds." in built.printed().notes
    counted = table([arm(tmp_path, seed) for seed in range(3)], columns=["parameters"])
    assert "[" not in markdown_row(counted)["parameters (M)"]
    assert record["distance_std"] == 1.0
    half = 4.30265 / 3**0.5  # t at 0.975 and 2 degrees of freedom
    assert record["distance_high"] == pytest.approx(13.5 * math.exp(half / 13.5), rel=1e-5)
    assert "[ ]: the 95 % t-interval of the mean" in built.printed().markdown()
    single = table([arm(tmp_path)])
    assert (single.records()[0]["distance_std"], single.records()[0]["distance_low"]) == (None, None)
    text = single.printed().markdown()
    assert "A row of a single seed has no interval." in text and "[ ]" not in text


def test_an_interval_stays_within_what_a_number_can_be(tmp_path: Path) -> None:
    values = {"is_classifier": (4.9, 4.99, 5.0), "agreement": (1.0, 1.0, 0.99), "recall_classifier": (0.0, 0.0, 0.5)}
    arms = [arm(tmp_path, seed, metrics={"fd_classifier": 9.0**seed} | {k: v[seed] for k, v in values.items()})
            for seed in range(3)]  # fmt: skip
    (record,) = table(arms, columns=["distance", "inception_score", "agreement", "recall"]).records()
    bounds = {"distance": (0, math.inf), "inception_score": (1, 5), "agreement": (0, 1), "recall": (0, 1)}
    for name, (low, high) in bounds.items():
        assert low <= record[f"{name}_low"] < record[name] < record[f"{name}_high"] <= high, name


def test_the_interval_of_two_values_is_that_of_students_first_table() -> None:
    assert t_interval([1.0, 3.0]) == pytest.approx(12.7062, rel=1e-5)  # t at 0.975 and 1 degree: 12.7062; s / √2 = 1
    assert t_interval([2.0, 2.0, 2.0]) == 0


# ------------------------------------------------------------------------------------------------------------ columns


def test_every_column_that_params_may_name_can_be_shown() -> None:
    assert tuple(COLUMNS) == get_args(ColumnName)


@pytest.fixture(scope="module")
def one_arm(tmp_path_factory: pytest.TempPathFactory) -> ArmResult:
    return arm(tmp_path_factory.mktemp("results"))


@given(st.permutations(get_args(ColumnName)), st.integers(1, len(get_args(ColumnName))))
def test_a_table_shows_its_first_columns_and_in_their_order(
    one_arm: ArmResult, names: list[ColumnName], count: int
) -> None:
    built = table([one_arm], "ablation", names[:count])
    headings = built.printed().headings
    shown = [COLUMNS[name].heading.format(distance="distance", score="score") for name in names[:count]]
    found = [heading.split(" (")[0] for heading in headings[3:]]
    assert found == [heading.split(" (")[0] for heading in shown][: MOST_COLUMNS - 3]
    assert [name for name in built.records()[0] if name in COLUMNS] == names[:count]


def test_notes_are_of_the_columns_shown(tmp_path: Path) -> None:
    notes = table([arm(tmp_path)], "ablation", ["distance", "speedup"]).notes
    assert any(note.startswith("Speed-up:") for note in notes)
    assert not any(note.startswith(("×", "Steps", "Training")) for note in notes)
    assert len(set(notes)) == len(notes)


def test_before_recovery_is_read_from_the_cut_and_is_a_dash_where_nothing_is_cut(tmp_path: Path) -> None:
    pruned = arm(tmp_path, cut={"fd_classifier": 250.0})
    unpruned = arm(tmp_path, name="full", ratio=None)
    built = table([unpruned, pruned], "ablation", ["distance_before", "distance"])
    assert [markdown_row(built, row)["before recovery ↓"] for row in (0, 1)] == ["–", "250"]
    (source,) = built.rows[1].cells["distance_before"].sources
    assert source["file"].endswith("cut.json")
    assert built.rows[1].command.split()[-2:] == [pruned.documents[name].path for name in ("cut", "metrics")]


def test_training_counts_the_adaptation_that_an_arm_begins_with(tmp_path: Path) -> None:
    own = {"total_steps": 300, "total_flops": 2.0e12, "total_seconds": 10.0, "trained_parameters": 5000}
    before = {"total_steps": 1000, "total_flops": 9.0e12, "total_seconds": 35.5, "trained_parameters": 900_000}
    adapted, direct = arm(tmp_path, training=own, adaptation=before), arm(tmp_path, name="lora", training=own)
    names: list[ColumnName] = ["trained_parameters", "steps", "training_flops", "training_seconds"]
    built = table([adapted, direct], "table2", names)
    values = [[row.cells[name].value for name in names] for row in built.rows]
    assert values == [[5000, 1300, 1.1e13, 45.5], [5000, 300, 2.0e12, 10.0]]
    shown = [{heading: markdown_row(built, row)[heading] for heading in ("steps", "training time (s)")}
             for row in (0, 1)]  # fmt: skip
    assert shown == [{"steps": "1300", "training time (s)": "45.5"}, {"steps": "300", "training time (s)": "10.0"}]
    files = [Path(source["file"]).stem for source in built.rows[0].cells["steps"].sources]
    assert files == ["training", "adaptation"]
    assert any("since pre-training" in note for note in built.notes)
    assert any("wall time" in note for note in built.notes)


def test_a_sum_of_which_a_part_is_missing_is_a_dash(tmp_path: Path) -> None:
    result = arm(tmp_path, training={"total_steps": 3, "total_seconds": 10.0}, adaptation={"total_steps": 4})
    built = table([result], "ablation", ["steps", "training_seconds"])
    assert [built.rows[0].cells[name].value for name in ("steps", "training_seconds")] == [7, None]


def test_the_page_shows_what_markdown_shows(tmp_path: Path) -> None:
    built = table([arm(tmp_path, label="<ours>")])
    page, row = built.printed().html(), markdown_row(built)
    cells = [unescape(cell) for cell in re.findall("<td>(.*?)</td>", page)]
    assert cells == list(row.values())
    assert cells[0] == "<ours>" and "<ours>" not in page


def test_the_csv_keeps_full_precision(tmp_path: Path) -> None:
    table([arm(tmp_path)]).write(tmp_path)
    (row,) = csv.DictReader((tmp_path / "table1.csv").open())
    assert float(row["kid"]) == 0.000123456
    assert float(row["macs"]) == 98_765_432
    assert (row["distance_std"], row["seeds"]) == ("", "1")
    assert float(row["speedup_q75"]) == 1.97


def test_every_cell_is_found_again_where_its_provenance_says(tmp_path: Path) -> None:
    built = table([arm(tmp_path, seed) for seed in range(2)])
    built.write(tmp_path)
    provenance = json.loads((tmp_path / "table1.provenance.json").read_text())
    (row,) = provenance["rows"]
    for cell in row["cells"].values():
        found = []
        for source in cell["sources"]:  # one a seed: these arms have no adaptation
            value = json.loads(Path(source["file"]).read_text())
            for part in source["key"].split("."):
                value = value[part]
            found.append(value)
            assert provenance["arms"][source["arm"]]["commit"] == "abc123"
            assert provenance["arms"][source["arm"]]["settings"] == {"finetune": {"steps": 600}}
        assert cell["value"] == pytest.approx(sum(found) / len(found), rel=1e-12)


FID: dict[str, float] = {"fid": 3.0}


def test_the_papers_numbers_stand_only_where_they_belong(tmp_path: Path) -> None:
    half, third = (arm(tmp_path, ratio=ratio, depth=28, metrics=FID) for ratio in (0.5, 0.3))
    other = arm(tmp_path, name="linear", schedule="linear", depth=28, metrics=FID)
    columns: list[ColumnName] = ["distance", "speedup"]
    built = table([half, third, other], columns=columns, distance="fid")
    text = built.printed().markdown()
    assert (markdown_row(built, 1)["paper: FID"], markdown_row(built, 1)["paper: speed-up"]) == ("+1.76*", "2.22×*")
    assert "+1.76*: mean rise over unpruned, all downstream sets; backbone not stated [review]." in text
    for row in (0, 2):
        assert {markdown_row(built, row)[key] for key in ("paper: FID", "paper: speed-up")} == {"not public"}
    assert "2.00×" in text and "not comparable in scale" in text
    upstream = table([third], "table3", columns, "fid")
    assert markdown_row(upstream)["paper: FID"] == "3.53*"
    assert "paper: speed-up" not in markdown_row(upstream)  # no number of it is public for this table


@pytest.mark.parametrize(("depth", "distance"), [(12, "fid"), (28, "fd_classifier")])
def test_a_table_of_ones_own_study_shows_no_number_of_the_paper(tmp_path: Path, depth: int, distance: str) -> None:
    built = table([arm(tmp_path, depth=depth, metrics={distance: 3.0})], columns=["distance"], distance=distance)
    assert "paper" not in built.printed().markdown().lower()
    assert not [name for name in built.records()[0] if name.startswith("paper") or name == "evidence"]


def test_a_table_of_which_nothing_is_public_says_so_once(tmp_path: Path) -> None:
    for name in ("table2", "table4"):
        built = table([arm(tmp_path, depth=28, metrics=FID)], name, ["distance"], "fid")
        text = built.printed().markdown()
        assert "paper" not in "".join(markdown_row(built))
        assert text.count("no number of it is public") == 1
        assert "not comparable in scale" not in text


def test_a_missing_number_is_a_dash_and_not_a_zero(tmp_path: Path) -> None:
    built = table([arm(tmp_path, metrics={"fd_classifier": 1.0})], columns=["recall"])
    assert markdown_row(built)["recall ↑"] == "–"
    assert built.records()[0]["recall"] is None


def test_only_on_inception_features_are_distance_and_score_called_fid_and_is(tmp_path: Path) -> None:
    metrics = {"fid": 3.0, "fid_ratio": 1.5, "recall": 0.25, "is": 4.25}
    columns: list[ColumnName] = ["distance", "over_floor", "recall", "inception_score"]
    row = markdown_row(table([arm(tmp_path, metrics=metrics)], columns=columns, distance="fid"))
    assert (row["FID ↓"], row["× floor ↓"], row["recall ↑"], row["IS ↑"]) == ("3.00", "1.50", "0.250", "4.25")
    other = arm(tmp_path, metrics={"is_classifier": 4.25})
    assert markdown_row(table([other], columns=["inception_score"]))["score ↑"] == "4.25"


def test_rows_follow_the_order_of_the_arms(tmp_path: Path) -> None:
    built = table([arm(tmp_path, name="a", ratio=0.3), arm(tmp_path, name="a"), arm(tmp_path, name="b")])
    assert [row.seeds[0].row for row in built.rows] == [
        ("a", "sit", "downstream", 0.3),
        ("a", "sit", "downstream", 0.5),
        ("b", "sit", "downstream", 0.5),
    ]


def test_a_table_without_rows_is_refused() -> None:
    with pytest.raises(UserError, match="table1: none of its arms is left; see its key `only`"):
        table([])


def test_latex_has_no_bare_special_character(tmp_path: Path) -> None:
    text = (
        table([arm(tmp_path, label="50% & {x}_y", ratio=None)], columns=get_args(ColumnName)).printed().latex("table_x")
    )
    assert r"50\% \& \{x\}\_y" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert len(re.findall(r"(?<!\\)&", body)) == len(re.findall(r"(?<!\\)&", text.split(r"\toprule")[1])) / 2
    for special in ("%", "#", "_"):
        assert not re.search(rf"(?<!\\){special}", "\n".join(text.splitlines()[1:]))
    assert all(ord(character) < 0x2190 for character in text)  # no arrow or sign that pdflatex lacks


@given(st.text())
def test_escaped_text_keeps_its_braces_balanced(text: str) -> None:
    bare = re.sub(r"\\[{}]", "", latex_escape(text))
    assert bare.count("{") == bare.count("}")


@given(st.floats(1e-6, 1e15))
def test_three_digits_are_within_half_a_percent(value: float) -> None:
    factor, _ = si_prefix([value])
    assert float(Cell(value).text(factor)) * factor == pytest.approx(value, rel=5.1e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("evidence: [review]", "evidence: [rumour]", "rumour is not explained"),
        ("ld_pruner, ratio: 0.3", "ld_pruner, ration: 0.3", "no field ration"),
        ("column: distance", "column: fid", "numbers.1.column"),
    ],
)
def test_a_reference_that_does_not_hold_together_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "reference.yaml"
    path.write_text(REFERENCE.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as error:
        Reference.read(path)
    assert "\n" not in str(error.value)
