"""The page that tells the story of a study: one file, which needs neither a network nor, to be read, JavaScript."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from entpruner.layout import WITHIN, Layout
from entpruner.reporting.records import Records
from entpruner.reporting.reference import Claim, Reference
from entpruner.reporting.story import charts, pictures
from entpruner.reporting.story.measured import (
    Comparison,
    Made,
    ced_of,
    comparisons,
    curves_of,
    decisions_of,
    family,
    path_of,
)
from entpruner.reporting.tables import ReportTable, Row, table_from
from entpruner.reporting.words import sentence
from entpruner.rules.report import StorySettings


@dataclass(frozen=True)
class Tile:
    """An answer of the audit or of a comparison: a question, the sentences that answer it, and a plot."""

    question: str
    answers: tuple[str, ...]
    figure: str | None
    """A picture as a data URI."""


@dataclass(frozen=True)
class Story:
    """What the page shows. None, or nothing, stands for a part that the study does not have."""

    settings: StorySettings
    headline: str
    rows: tuple[Row, ...]
    compared: tuple[Comparison, ...]
    samples: Mapping[str, str]
    """The label of a row of samples -> the samples as a picture."""
    samples_figure: str | None
    """The study's own figure of samples, where the samples themselves are not there."""
    charts: Mapping[str, charts.Drawn | None]
    tables: tuple[ReportTable, ...]
    effects: Mapping[str, Tile]
    """The effects of criterion and schedule, by the file that has all of them."""
    audited: bool
    tiles: tuple[Tile, ...]
    claims: tuple[Claim, ...]
    evidence: Mapping[str, str]
    made: Made

    def sources(self, claim: Claim) -> str:
        """Where a claim of the paper is known from."""
        return "; ".join(self.evidence[tag] for tag in claim.evidence)

    def family(self, label: str) -> str:
        """The kind of the arm of a row of samples, which gives the row its colour."""
        return next((family(row.seeds[0]) for row in self.compared[0].rows if row.label == label), "real")


def story_of(records: Records, settings: StorySettings, cited: Path, reference: Path) -> Story:
    """What there is to tell of a study with the documents ``records``, which cites files of the folder ``cited``."""
    public, paths = Reference.read(reference), Layout.at(records.folder)
    rows = table_from(records, settings.overview, cited, reference).rows
    compared = comparisons(rows)
    first = compared[0].where if compared else rows[0].where
    shown: dict[str, charts.Drawn | None] = dict.fromkeys(("blocks", "votes", "curves"))
    shown["tradeoff"] = charts.tradeoff(rows, settings.called, first)
    arms = {}
    if compared:
        lead = compared[0]
        arms = {row.label: row.seeds[0] for row in lead.rows}
        kinds = {arm.key: (family(arm), label) for label, arm in arms.items()}
        shown["blocks"] = charts.block_map(lead.rows, ced_of(records, lead.pruned.seeds[0]))
        shown["votes"] = charts.votes(decisions_of(records, lead.pruned.seeds[0]))
        shown["curves"] = charts.curves(kinds, curves_of(records, list(arms.values())))
    figure = path_of(records.folder, WITHIN.figure("samples").files["png"])
    return Story(
        settings,
        compared[0].headline(settings.called) if compared else f"Networks measured: {len(rows)}",
        rows,
        tuple(compared),
        pictures.strips(paths, arms) if arms else {},
        pictures.picture(figure) if figure else None,
        shown,
        tuple(table_from(records, table, cited, reference) for table in settings.tables),
        dict(effects(records.folder, name) for name in settings.effects),
        (records.folder / WITHIN.audit_report().path).exists(),
        tuple(tiles(records)),
        public.claims,
        public.evidence,
        Made.read(records),
    )


def effects(folder: Path, name: str) -> tuple[str, Tile]:
    """A comparison of criteria and schedules: the file in ``folder`` that tells all of it, and what the page tells."""
    files = WITHIN.effects(name).files
    title, *lines = (folder / files["md"]).read_text().splitlines()
    answers = tuple(line.removeprefix("- ").replace("**", "") for line in lines if line.startswith("- "))
    return str(files["md"]), Tile(title.removeprefix("# "), answers, pictures.picture(folder / files["png"]))


def tiles(records: Records) -> list[Tile]:
    """The answers of the audit, if there was one."""
    path = WITHIN.audit_report().files["summary"]
    if path not in records:
        return []
    found = []
    for chapter in records[path]["chapters"]:
        named = chapter["figures"][:1]
        figure = path_of(records.folder, WITHIN.audits / f"{named[0]}.png") if named else None
        answers = tuple(answer.replace("**", "") for answer in chapter["answers"])
        found.append(Tile(chapter["question"], answers, pictures.picture(figure) if figure else None))
    return found


def html(story: Story, template: Path) -> str:
    """The page. Everything that comes from a study is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"sentence": sentence}
    page = environment.from_string(template.read_text())
    specs = {name: chart.spec for name, chart in story.charts.items() if chart is not None}
    return page.render(story=story, settings=story.settings, specs=specs, library=charts.library())
