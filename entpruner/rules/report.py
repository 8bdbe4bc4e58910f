"""The rules that make tables, figures, effects, and MLflow's view of the arms."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from entpruner.layout import MLFLOW_ARTEFACTS, MLFLOW_DATABASE, Artefact, Layout, file
from entpruner.params.base import Frozen
from entpruner.params.files import REFERENCE, STORY_TEMPLATE
from entpruner.params.reporting import ColumnName, ScoresFigure
from entpruner.rules.rule import Given, Job, Rule
from entpruner.study.arms import Arm, ArmIdentity, select
from entpruner.study.resolved import ResolvedStudy, timings


class TableSettings(Frozen):
    name: str
    caption: str
    columns: tuple[ColumnName, ...]
    distance: str
    """The metric that is shown: fid, or fd_<extractor>."""
    command: str
    """The command that makes a row, without the targets."""
    arms: tuple[ArmIdentity, ...]


class Table(Rule):
    """Build one table of the paper."""

    name = "table"

    def settings(self, study: ResolvedStudy, job: Job) -> TableSettings:
        table = study.params.tables[job.table]
        return TableSettings(
            name=job.table,
            caption=table.caption,
            columns=table.columns,
            distance=study.distance(),
            command=study.command,
            arms=tuple(arm.identity for arm in study.shown(job.table)),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"results": Artefact(study.paths.root, {}), "reference": file(REFERENCE)}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        arms, paths = study.shown(job.table), study.paths
        found = []
        for arm in arms:
            final, samples = paths.final(arm.key).files, paths.samples(arm.key).files
            found += [paths.metrics(arm.key).path, paths.metrics_timing(arm.key).path]
            found += [samples["timing"], final["timing"], final["card"]]
        if "distance_before" in study.params.tables[job.table].columns:
            found += [paths.metrics(arm.key, "cut-").path for arm in arms if arm.stages]
        return [*found, *costs(study, arms), *timings(study, arms)]

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.table("{table}")}


def costs(study: ResolvedStudy, arms: Sequence[Arm]) -> list[Path]:
    """The cost documents of the backbones of these arms."""
    return sorted({study.paths.cost(arm.backbone, arm.data).path for arm in arms})


class FigureSettings(Frozen):
    kind: Literal[
        "entropy_vs_loss", "ced_by_block", "ced_by_timestep",
        "curves", "samples", "kept_blocks", "distance_vs_ratio", "monitor",
    ]  # fmt: skip
    backbones: tuple[str, ...] = ()
    """The backbones of a figure of scores, each with a panel."""
    data: str = ""
    """The data set on which the blocks of a figure of scores were scored."""
    seed: int = 0
    """The seed with which the blocks of a figure of scores were scored."""
    arms: tuple[ArmIdentity, ...] = ()
    """The arms of a figure of arms, in their order."""
    distance: str = ""
    """The metric that a figure of arms shows: fid, or fd_<extractor>."""


class Figure(Rule):
    """Draw one figure, of block scores or of arms."""

    name = "figure"

    def settings(self, study: ResolvedStudy, job: Job) -> FigureSettings:
        figure = study.params.figures[job.figure]
        if isinstance(figure, ScoresFigure):
            seed = study.params.seeds[0]
            return FigureSettings(kind=figure.kind, backbones=figure.backbones, data=figure.data, seed=seed)
        arms = tuple(arm.identity for arm in select(study.arms.values(), figure))
        return FigureSettings(kind=figure.kind, arms=arms, distance=study.distance())

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"results": Artefact(study.paths.root, {})}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        figure, paths = study.params.figures[job.figure], study.paths
        if isinstance(figure, ScoresFigure):
            criteria = ("ced", "sensitivity") if figure.kind == "entropy_vs_loss" else ("ced",)
            seed = study.params.seeds[0]
            made = [paths.scores(name, figure.data, seed, which) for name in figure.backbones for which in criteria]
            return [scores.files["scores"] for scores in made]
        arms = select(study.arms.values(), figure)
        match figure.kind:
            case "curves":
                return [made.files["curve"] for arm in arms for made in (*stages(study, arm), paths.final(arm.key))]
            case "samples":
                real = [paths.pixels(arm.data).files["manifest"] for arm in arms[:1]]
                return [paths.samples(arm.key).files["manifest"] for arm in arms] + real
            case "kept_blocks":
                return [paths.final(arm.key).files["card"] for arm in arms]
            case "monitor":
                return [paths.final(arm.key).files["timing"] for arm in arms]
            case "distance_vs_ratio":
                return [paths.metrics(arm.key).path for arm in arms]

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.figure("{figure}")}


class EffectsSettings(Frozen):
    caption: str
    arms: tuple[ArmIdentity, ...]
    """The arms that cross criteria and schedules. What others are compared with comes first."""
    distance: str
    """The metric that is compared: fid, or fd_<extractor>."""


class Effects(Rule):
    """Compare criteria at each schedule, and schedules at each criterion, paired by seed."""

    name, room, made = "effects", "audit.commands", Layout.effects

    def settings(self, study: ResolvedStudy, job: Job) -> EffectsSettings:
        asked = study.params.effects[job.effects]
        arms = tuple(arm.identity for arm in select(study.arms.values(), asked))
        return EffectsSettings(caption=asked.caption, arms=arms, distance=study.distance())

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"results": Artefact(study.paths.root, {})}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        arms = select(study.arms.values(), study.params.effects[job.effects])
        return [study.paths.metrics(arm.key).path for arm in arms]


def stages(study: ResolvedStudy, arm: Arm) -> list[Artefact]:
    """What each pruning stage of an arm leaves."""
    return [study.paths.stage(arm.key, stage) for stage in range(1, arm.stages + 1)]


class StorySettings(Frozen):
    study: str
    command: str
    """The command that makes the study."""
    overview: TableSettings
    """The arms that the page compares, with the columns that it compares them by. Arms of tables whose samplings differ
    from the study's in more than the number of images appear only in their tables."""
    tables: tuple[TableSettings, ...]
    effects: tuple[str, ...]
    """The names of the comparisons of criteria and schedules."""

    @property
    def called(self) -> str:
        """What the distance is called."""
        return "FID" if self.overview.distance == "fid" else "distance"


class Story(Rule):
    """Write the page that tells the story of the study."""

    name, warm = "story", False

    def settings(self, study: ResolvedStudy, job: Job) -> StorySettings:
        tables = tuple(Table().settings(study, Job("table", table=name)) for name in study.params.tables)
        arms = {arm.key: arm for table in tables for arm in table.arms}
        as_many = {"samples": study.params.sampling.samples}
        alike = [
            arm
            for arm in arms.values()
            if study.arms[arm.key].sampling.model_copy(update=as_many) == study.params.sampling
        ]
        overview = TableSettings(
            name="overview",
            caption="All arms that are sampled alike",
            columns=("distance", "speedup"),
            distance=study.distance(),
            command=study.command,
            arms=tuple(alike or arms.values()),
        )
        return StorySettings(
            study=study.params.study,
            command=study.command,
            overview=overview,
            tables=tables,
            effects=tuple(study.params.effects),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        root = Artefact(study.paths.root, {})
        return {"results": root, "reference": file(REFERENCE), "template": file(STORY_TEMPLATE)}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        """What arms are made for, so that all is there that the page shows; and the audit's report, if there is one."""
        paths, report = study.paths, study.paths.audit_report().path
        found = [paths.table(table).files["md"] for table in study.params.tables]
        found += [paths.effects(effects).files["md"] for effects in study.params.effects]
        found += [paths.figure(figure).files["png"] for figure in study.params.figures]
        return [*found, report] if report.exists() else found

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.story()}


class TrackSettings(Frozen):
    study: str
    captions: dict[str, str]
    """The name of a table -> its caption."""
    arms: dict[str, tuple[ArmIdentity, ...]]
    """The name of a table -> the arms that are listed under it. An arm of several tables is listed under the first."""
    distance: str
    """The metric that the arms are sorted by: fid, or fd_<extractor>."""


class Track(Rule):
    """Bring MLflow's view up to date with the files of the arms."""

    name, warm = "track", False

    def listed(self, study: ResolvedStudy) -> dict[str, list[Arm]]:
        """The arms that are listed under each table: an arm is listed under the first table that shows it."""
        first: dict[str, str] = {}
        for table in study.params.tables:
            for arm in study.shown(table):
                first.setdefault(arm.key, table)
        return {table: [study.arms[key] for key in first if first[key] == table] for table in study.params.tables}

    def settings(self, study: ResolvedStudy, job: Job) -> TrackSettings:
        return TrackSettings(
            study=study.params.study,
            captions={table: spec.caption for table, spec in study.params.tables.items()},
            arms={table: tuple(arm.identity for arm in arms) for table, arms in self.listed(study).items()},
            distance=study.distance(),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {
            "results": Artefact(study.paths.root, {}),
            "database": Artefact(MLFLOW_DATABASE, {}),
            "artifacts": Artefact(MLFLOW_ARTEFACTS, {}),
        }

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        paths, arms = study.paths, [arm for arms in self.listed(study).values() for arm in arms]
        found = [paths.table(table).files["md"] for table in study.params.tables]
        for arm in arms:
            final = paths.final(arm.key).files
            found += [paths.metrics(arm.key).path, final["timing"], final["curve"]]
            found += [paths.samples(arm.key).files["grid"], *(made.files["decision"] for made in stages(study, arm))]
        return found + costs(study, arms)

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.tracking()}


RULES = (Table(), Figure(), Effects(), Story(), Track())
