"""Write the effects of criterion and schedule, where arms cross both: a table, a figure, and what they say."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.audit.effects import Effect, cells, corrected, effects
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Table
from entpruner.audit.report.words import listed
from entpruner.audit.statistics import CORRECTED, Estimate
from entpruner.layout import WITHIN, Layout
from entpruner.reporting.tabular import write_text
from entpruner.reporting.words import spoken
from entpruner.rules.report import EffectsSettings
from entpruner.system.files import read_json

METHOD = """\
An effect is a ratio of distances, paired by seed: one criterion over another with the same schedule, or one schedule
over another with the same criterion; below 1 is nearer to the real images. Geometric means over the seeds, with
Student's 95 % interval on the log; several draws of a random set are averaged within a seed. `p, corrected`: by Holm's
method, for all rows of the table. `detectable`: the ratio above 1 that four of five such comparisons would tell apart
from 1, uncorrected."""


def run(settings: EffectsSettings, *, results: Path, out: Path) -> None:
    """Write ``<out>.md``, ``<out>.csv``, ``<out>.png`` and ``<out>.svg`` from files in ``results``."""
    paths = Layout.at(results)
    distances = [read_json(paths.metrics(arm.key).path)[settings.distance] for arm in settings.arms]
    found = effects(cells(settings.arms, distances))
    table = effects_table(out.name, settings.caption, found)
    table.write_csv(out.parent)
    forest(panels(found), "ratio of the distances", out, ratios=True)
    said = [f"- {sentence}" for sentence in sentences(found)]
    picture = f"![{settings.caption}]({out.name}.png)"
    blocks = [f"# {settings.caption}", METHOD, "\n".join(said), picture, f"([CSV]({out.name}.csv))", table.markdown()]
    write_text(out.with_name(WITHIN.effects(out.name).files["md"].name), "\n\n".join(blocks) + "\n")


def effects_table(name: str, caption: str, found: Sequence[Effect]) -> Table:
    columns = {
        "network": "", "effect of": "", "ratio of": "", "at": "", "seeds": "d", "ratio": ".2f", "p": ".3f",
        "p, corrected": ".3f", "detectable": ".2f",
    }  # fmt: skip
    rows = [
        [
            where(effect), effect.of, compared(effect), spoken(effect.at), len(effect.logs), effect.ratio,
            effect.chance, chance, effect.detectable,
        ]
        for effect, chance in zip(found, corrected(found), strict=True)
    ]  # fmt: skip
    return Table(name, caption, columns, rows)


def sentences(found: Sequence[Effect]) -> list[str]:
    """What is told apart after the correction: a sentence for each network and for each of the two effects."""
    said = []
    chances = dict(zip(map(id, found), corrected(found), strict=True))
    for network in dict.fromkeys(effect.network for effect in found):
        for of in ("criterion", "schedule"):
            family = [effect for effect in found if (effect.network, effect.of) == (network, of)]
            if family:
                apart = [effect for effect in family if (chances[id(effect)] or 1.0) <= CORRECTED]
                said.append(f"**{where(family[0])}, effect of the {of}.** {told(apart, len(family))}")
    return said


def told(apart: Sequence[Effect], count: int) -> str:
    if not apart:
        return f"None of {count} comparisons can be told apart from 1 after correction for all rows."
    named = [f"{compared(effect)} at {spoken(effect.at)} {effect.ratio:.2f}" for effect in apart]
    return f"Told apart from 1 after correction for all rows, {len(apart)} of {count} comparisons: {listed(named)}."


def panels(found: Sequence[Effect]) -> dict[str, dict[str, dict[str, Estimate | None]]]:
    """Network -> comparison -> the effect that it is of -> the ratio of the distances."""
    lines = dict.fromkeys(line(effect) for effect in found)
    shown: dict[str, dict[str, dict[str, Estimate | None]]] = {
        where(effect): {name: {} for name in lines} for effect in found
    }
    for effect in found:
        shown[where(effect)][line(effect)][f"effect of the {effect.of}"] = effect.ratio
    return shown


def line(effect: Effect) -> str:
    return f"{compared(effect)}, at {spoken(effect.at)}"


def compared(effect: Effect) -> str:
    return f"{spoken(effect.one)} / {spoken(effect.against)}"


def where(effect: Effect) -> str:
    backbone, data, ratio = effect.network
    return f"{spoken(backbone)}, {data}, {100 * (ratio or 0):g} %"
