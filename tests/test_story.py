"""The page that tells a study's story: whole in one file, true to the records, readable by anybody."""

import re
from collections.abc import Sequence
from html import unescape
from pathlib import Path

import pytest
import yaml
from small_study import PARAMS, finish_smoke
from test_tables import arm, table

from entpruner.layout import Layout
from entpruner.params.files import REFERENCE, STORY_TEMPLATE, read_study
from entpruner.reporting.ending import aligned, ending, stopped
from entpruner.reporting.story.measured import comparisons, family
from entpruner.reporting.tables import ReportTable
from entpruner.rules.report import Story
from entpruner.rules.rule import Job
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.files import write_json

LABEL = "ours <script>alert(1)</script>&amp;"


def write_page(folder: Path, label: str, alone: bool = False, effects: Sequence[str] = ()) -> str:
    """The page of a small study in ``folder``, in which EntPruner's arm has this label and may be the only one.

    ``effects`` names comparisons that the study has besides.
    """
    from entpruner.commands.story import run

    params = yaml.safe_load((PARAMS / "smoke.yaml").read_text())
    params["arms"]["entpruner"]["label"] = label
    if alone:
        params["arms"] = {"entpruner": params["arms"]["entpruner"]}
        params["tables"] = {"table1": params["tables"]["table1"] | {"arms": ["entpruner"]}}
        params["figures"] = {}
    file = folder / "smoke.yaml"
    file.write_text(yaml.safe_dump(params))
    paths = Layout("smoke", folder)
    study, rule = ResolvedStudy(read_study([file]), [file]), Story()
    settings, page = rule.settings(study, Job("story")), paths.story().path
    settings = settings.model_copy(update={"effects": effects})
    run(settings, results=paths.root, reference=REFERENCE, template=STORY_TEMPLATE, out=page)
    return page.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    finish_smoke(folder / "smoke")
    votes = [{"removed": n, "dropped": [3][:n], "rank_ntk": 1 + n, "rank_zico": 2 - n, "score": 3.0} for n in (0, 1)]
    decision = {"stage": 1, "removed": 1, "removed_before": 0, "weights": {"ntk": 1, "zico": 1}, "candidates": votes}
    write_json(folder / "smoke/arms/entpruner-sit-downstream-r50-s0/stage1/decision.json", decision)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_page(folder, LABEL)


def test_arms_of_another_sampling_are_not_compared_by_the_speed_of_a_pass() -> None:
    study = ResolvedStudy(read_study([PARAMS / "digits.yaml"]))
    settings = Story().settings(study, Job("story"))
    few, compared = "few_entpruner-dit-downstream-r50-s0", {arm.key for arm in settings.overview.arms}
    assert few not in compared and few.removeprefix("few_") in compared
    assert few in {arm.key for table in settings.tables for arm in table.arms}
    paper = Story().settings(ResolvedStudy(read_study([PARAMS / "paper.yaml"])), Job("story"))
    assert {arm.data for arm in paper.overview.arms} > {"upstream"}  # they differ in the number of images alone
    all_few = {name: arm for name, arm in study.params.arms.items() if name.startswith("few_")}
    tables = {"few_steps": study.params.tables["few_steps"].model_copy(update={"arms": tuple(all_few)})}
    only = ResolvedStudy(study.params.model_copy(update={"arms": all_few, "tables": tables}))
    assert few in {arm.key for arm in Story().settings(only, Job("story")).overview.arms}


def test_the_page_is_one_file_that_asks_no_network(page: str) -> None:
    assert len(page.encode()) < 6_000_000
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//(?!arxiv\.org)""", markup)
    assert not re.search(r"<(?:link(?! rel=\"icon\")|iframe|object)|@import|url\((?!#)", markup)


def test_the_page_says_its_headline_and_shows_its_charts_without_javascript(page: str, folder: Path) -> None:
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    headline = (folder / "smoke/headline.txt").read_text().strip()
    assert headline == "Half the blocks gone: 1.50× faster; distance 6.1 → 7.4"  # of the records' 6.143 and 7.429
    assert f"<h1>{headline}.</h1>" in markup
    assert re.findall(r'id="chart-(\w+)"[^>]*><svg', markup) == ["tradeoff", "blocks", "votes", "curves"]
    assert markup.count('class="sortable"') == 2


def test_what_comes_from_a_study_is_escaped(page: str) -> None:
    assert "<script>alert" not in page
    assert "ours &lt;script&gt;alert(1)&lt;/script&gt;" in page
    (specs,) = re.findall(r'id="specs">(.*?)</script>', page, re.DOTALL)
    assert "\\u003cscript\\u003ealert(1)" in specs and "<" not in specs


def test_the_page_says_what_a_study_does_not_have(page: str) -> None:
    text = " ".join(unescape(page).split())
    assert "This study was not audited." in text
    assert "The samples of this study are not in its folder, so none is shown." in text


def test_a_study_with_nothing_to_compare_has_a_page(folder: Path) -> None:
    text = " ".join(unescape(write_page(folder, "ours", alone=True)).split())
    assert "The study has no EntPruner arm beside an unpruned one, so blocks and votes are not shown." in text
    assert "The study has no training curves to show." in text


def test_the_audit_becomes_a_part_of_the_page(folder: Path) -> None:
    answer = "**CED.** Goes with it: dit 0.63 [0.38, 0.79]."
    chapter = {"question": "Does the score predict what matters?", "answers": [answer], "figures": ["criteria"]}
    write_json(folder / "smoke/audit/summary.json", {"chapters": [chapter]})
    (folder / "smoke/audit/criteria.png").write_bytes(b"a picture")
    page = write_page(folder, "ours")
    assert "<h3>Does the score predict what matters?</h3>" in page
    assert "<p>CED. Goes with it: dit 0.63 [0.38, 0.79].</p>" in page
    assert 'src="data:image/png;base64,YSBwaWN0dXJl"' in page


def test_what_criteria_and_schedules_change_is_on_the_page(folder: Path, page: str) -> None:
    assert "one at a time" not in page
    said = "# What each changes\n\nA method.\n\n- **DiT, effect of the criterion.** None of 3.\n- **SiT.** One.\n"
    (folder / "smoke/effects").mkdir()
    (folder / "smoke/effects/crossed.md").write_text(said)
    (folder / "smoke/effects/crossed.png").write_bytes(b"a picture")
    page = write_page(folder, "ours", effects=["crossed"])
    assert "<h3>What each changes</h3>\n<p>DiT, effect of the criterion. None of 3.</p>" in page
    assert "<p>SiT. One.</p>" in page and '<a href="effects/crossed.md">' in page and "A method" not in page


# ------------------------------------------------------------------------------------------------------- the headline


def rows_of(folder: Path, *distances: tuple[str, float | None, tuple[float, ...]]) -> ReportTable:
    """A table of arms by name, ratio and the distance of each seed."""
    known = {"full": ("none", None), "entpruner": ("vote", "ced"), "ld_pruner": ("one_shot", "ld_pruner")}
    arms = []
    for name, ratio, found in distances:
        schedule, criterion = known[name]
        for seed, distance in enumerate(found):
            made = arm(folder, seed, name=name, label=name, ratio=ratio, schedule=schedule,
                       metrics={"fd_classifier": distance})  # fmt: skip
            arms.append(made.model_copy(update={"criterion": criterion}))
    return table(arms, columns=["distance", "speedup"])


def test_the_headline_compares_networks_of_as_many_blocks_and_says_what_intervals_allow(tmp_path: Path) -> None:
    built = rows_of(
        tmp_path,
        ("full", None, (4.5, 4.6)),
        ("entpruner", 0.5, (6.5, 6.6)),
        ("ld_pruner", 0.5, (5.0, 9.0)),
    )
    (compared,) = comparisons(built.rows)
    assert compared.headline("distance") == "Half the blocks gone: 1.93× faster; distance 4.5 → 6.5, LD-Pruner 7.0"
    assert list(compared.openness()) == [
        "entpruner ends further from the real images than full, over 2 seeds.",
        "entpruner and ld_pruner: their intervals over 2 seeds overlap.",
    ]


def test_a_single_seed_has_no_interval_to_compare(tmp_path: Path) -> None:
    (compared,) = comparisons(rows_of(tmp_path, ("full", None, (4.5,)), ("entpruner", 0.5, (6.5,))).rows)
    assert list(compared.openness()) == ["Full: one seed alone, so the difference has no interval."]


def test_a_study_without_entpruner_has_nothing_to_compare(tmp_path: Path) -> None:
    built = rows_of(tmp_path, ("full", None, (4.5,)), ("ld_pruner", 0.5, (6.5,)))
    assert comparisons(built.rows) == []
    assert [family(row.seeds[0]) for row in built.rows] == ["unpruned", "LD-Pruner"]


# -------------------------------------------------------------------------------------------------------- the end


@pytest.fixture
def smoke(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedStudy:
    file = PARAMS / "smoke.yaml"
    study = ResolvedStudy(read_study([file]), [file])
    monkeypatch.setattr(study, "paths", Layout("smoke", folder))
    return study


def test_a_run_ends_with_its_headline_the_page_and_what_is_next(smoke: ResolvedStudy, page: str) -> None:
    _, headline, where, following = ending(smoke, ()).splitlines()
    assert headline.startswith("Half the blocks gone: ")
    assert where == f"The whole story: {smoke.paths.story().path}"
    assert following == "Next, for what score, proxies and schedule are worth: make audit STUDY=smoke"


def test_a_run_for_a_table_ends_with_the_table(smoke: ResolvedStudy, tmp_path: Path) -> None:
    file = smoke.paths.table("table1").files["md"]
    file.parent.mkdir(exist_ok=True)
    file.write_text(rows_of(tmp_path, ("full", None, (4.5,)), ("entpruner", 0.5, (6.5,))).printed().markdown())
    said = ending(smoke, [str(file)]).splitlines()
    assert said[1:3] == ["A caption", "method     removed  blocks  distance ↓"]
    assert said[3:6] == [
        "SiT, downstream",
        "full             –    6/12        4.50",
        "entpruner     50 %    6/12        6.50",
    ]
    assert said[6:] == [str(file), "Next, for the whole study, which goes on from here: make results STUDY=smoke"]


def test_an_ablation_is_gone_on_with_as_it_was_begun(smoke: ResolvedStudy) -> None:
    ablation = PARAMS / "ablations/reduction.yaml"
    study = ResolvedStudy(read_study([ablation]), [ablation])
    assert ending(study, ["x"]).endswith("snakemake --configfile params/ablations/reduction.yaml --cores all")
    assert "results/digits/logs" in stopped(study)


def test_an_empty_table_is_refused_by_nobody(tmp_path: Path) -> None:
    assert list(aligned("**A**\n\n| a | b |\n| --- | --: |\n| x | 1 |\n")) == ["A", "a  b", "x  1"]
