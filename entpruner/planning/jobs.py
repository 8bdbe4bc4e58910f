"""The jobs of a study: what its tables and figures need, as the rules of ``workflow/`` make it.

The rules are not read here; ``tests/test_planning.py`` holds the two against each other, job by job. What an arm is,
how many stages it has and what its scores are called both take from ``arms.py``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from entpruner.params.evaluation import ClassifierExtractor
from entpruner.params.origins import origins
from entpruner.params.reporting import ScoresFigure, Table
from entpruner.params.study import Study
from entpruner.study.arms import Arm, claimed, expand, select


@dataclass(frozen=True)
class Job:
    """One run of a rule; the fields that its rule has no wildcard for are empty."""

    rule: str
    name: str = ""
    """Of a table or figure; of the scores; of a file; number of a shard."""
    backbone: str = ""
    data: str = ""
    seed: int = 0
    arm: str = ""
    """Its key."""
    stage: int = 0
    cut: bool = False
    """Of the network right after the arm's last cut."""


def jobs_of(study: Study) -> list[Job]:
    """All that ``snakemake`` runs where nothing has been made yet, each job once."""
    arms = list(expand(study).values())
    needed = [Job("track")]
    for name, table in study.tables.items():
        needed += [Job("table", name), *tabulated(study, select(arms, table), table)]
    for name in study.figures:
        needed += [Job("figure", name), *drawn(study, arms, name)]
    return list(dict.fromkeys(needed))


def audit_jobs(study: Study) -> list[Job]:
    """What ``snakemake audit`` runs on top of ``jobs_of``; nothing where the study has no audit."""
    if study.audit is None:
        return []
    audit, needed = study.audit, [Job("audit_report")]
    for backbone in audit.backbones:
        transformer = study.backbones[backbone].unet is None
        parts = ["masks", "scores", "choices", "stability", *(["proxies", "schedules"] if transformer else [])]
        needed += [Job("audit_regime", backbone=backbone), *begun(study, backbone, audit.data, audit.seeds[0])]
        for seed in audit.seeds:
            needed += [Job(f"audit_{part}", backbone=backbone, seed=seed) for part in parts]
            needed += begun(study, backbone, audit.data, seed)
    needed += [*stored(study, "upstream"), *stored(study, audit.data), *classified(study, audit.data)]
    for _, arm in claimed(study, list(expand(study).values())):
        needed += [*evaluated(study, arm), costed(arm)]
    known = set(jobs_of(study))
    return [job for job in dict.fromkeys(needed) if job not in known]


def tabulated(study: Study, arms: Iterable[Arm], table: Table) -> Iterator[Job]:
    for arm in arms:
        yield from evaluated(study, arm)
        yield costed(arm)
        if arm.stages and "distance_before" in table.columns:
            yield from evaluated(study, arm, cut=True)
        if arm.adapted:
            yield from begun(study, arm.backbone, arm.data, arm.seed)


def drawn(study: Study, arms: Iterable[Arm], name: str) -> Iterator[Job]:
    figure = study.figures[name]
    if isinstance(figure, ScoresFigure):
        for backbone in figure.backbones:
            yield from scored(study, backbone, figure.data, study.seeds[0], "ced")
            if figure.kind == "entropy_vs_loss":
                yield from scored(study, backbone, figure.data, study.seeds[0], "sensitivity")
        return
    for arm in select(arms, figure):
        if figure.kind == "distance_vs_ratio":
            yield from evaluated(study, arm)
        elif figure.kind == "samples":
            yield from sampled(study, arm)
        else:
            yield from trained(study, arm)


def evaluated(study: Study, arm: Arm, cut: bool = False) -> Iterator[Job]:
    yield Job("evaluate", arm=arm.key, cut=cut)
    yield from classified(study, arm.data)
    yield from sampled(study, arm, cut)


def sampled(study: Study, arm: Arm, cut: bool = False) -> Iterator[Job]:
    yield Job("sample", arm=arm.key, cut=cut)
    if cut:
        yield Job("cut", arm=arm.key)
        yield from staged(study, arm)
    else:
        yield from trained(study, arm)


def trained(study: Study, arm: Arm) -> Iterator[Job]:
    yield Job("recover", arm=arm.key)
    yield from staged(study, arm)


def staged(study: Study, arm: Arm) -> Iterator[Job]:
    for stage in range(1, arm.stages + 1):
        yield Job("prune", arm=arm.key, stage=stage)
    if arm.stages:
        yield from scored(study, arm.backbone, arm.data, arm.seed, arm.scores)
    yield from begun(study, arm.backbone, "upstream" if arm.start == "pretrained" else arm.data, arm.seed)
    yield from stored(study, arm.data)


def scored(study: Study, backbone: str, data: str, seed: int, scores: str) -> Iterator[Job]:
    yield Job("score", scores, backbone, data, seed)
    yield from begun(study, backbone, data, seed)


def begun(study: Study, backbone: str, data: str, seed: int) -> Iterator[Job]:
    """The model that all arms on this data begin with."""
    if data != "upstream":
        yield Job("adapt", backbone=backbone, data=data, seed=seed)
        yield from stored(study, data)
    if study.backbones[backbone].checkpoint is None:
        yield Job("pretrain", backbone=backbone, seed=seed)
        yield from stored(study, "upstream")
    else:
        yield Job("import_checkpoint", backbone=backbone, seed=seed)
        yield from downloaded(study.backbones[backbone])


def classified(study: Study, data: str) -> Iterator[Job]:
    """The data set's own classifier, where the study measures with it."""
    if any(isinstance(net, ClassifierExtractor) for net in study.evaluation.extractors.values()):
        yield Job("classifier", data=data)
    yield from stored(study, data)


def stored(study: Study, data: str) -> Iterator[Job]:
    """Its pixels, and their latents where networks are trained on those."""
    yield Job("data", data=data)
    yield from downloaded(study.datasets[data])
    if study.latents is not None:
        yield Job("autoencoder")
        yield Job("latents", data=data)
        for shard in range(study.latents.shards):
            yield Job("latents_shard", str(shard), data=data)


def downloaded(section: Any) -> Iterator[Job]:
    """What a part of the study names by url."""
    for origin in origins(section):
        if origin.url:
            yield Job("download", origin.file)


def costed(arm: Arm) -> Job:
    return Job("cost", backbone=arm.backbone, data=arm.data)
