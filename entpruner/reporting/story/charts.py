"""The charts of the story page, as Vega-Lite specifications by Altair. Colours are variables of the page's style."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from entpruner.reporting.story.measured import Family, family
from entpruner.reporting.tables import Row
from entpruner.scores import Scores

FAMILIES: dict[Family, str] = {
    "unpruned": "var(--unpruned)",
    "EntPruner": "var(--entpruner)",
    "LD-Pruner": "var(--ldpruner)",
    "random": "var(--random)",
    "other": "var(--other)",
}
"""The colour of each kind of arm, in every chart."""
QUIET: dict[str, Any] = {
    **dict.fromkeys(("labelColor", "titleColor"), "var(--muted)"),
    **dict.fromkeys(("gridColor", "domainColor", "tickColor"), "var(--line)"),
    **dict.fromkeys(("labelFontSize", "titleFontSize"), 12),
    "titleFontWeight": "normal",
    "titlePadding": 10,
}
CONFIG: dict[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "axis": QUIET,
    "legend": QUIET | {"orient": "top", "title": None, "symbolType": "circle", "labelLimit": 300},
    "header": {"labelColor": "var(--muted)", "titleColor": "var(--muted)", "labelFontSize": 12},
    "view": {"stroke": None},
}
NARROW = alt.Legend(columns=alt.ExprRef(f"width < 500 ? 3 : {len(FAMILIES)}"))
"""A legend that has all kinds of arms, in two lines where the page is as narrow as a telephone."""
SHOWN_SPEED = alt.Tooltip("speed-up:Q", format=".2f")
ROOM = {"left": 24, "right": 8, "top": 5, "bottom": 5}
"""The space around such a picture: the reader's font may be wider than the one that it was laid out with."""
PROXIES = {"ntk": "NTK", "zico": "ZiCo"}
BARE: dict[str, Any] = {"domain": False, "ticks": False}
STATIC_WIDTH = 640
"""The width of a picture that stands in for a chart where there is no JavaScript, in pixels."""


@dataclass(frozen=True)
class Drawn:
    """A chart: its specification, and a picture of it."""

    spec: dict[str, Any]
    svg: str


def drawn(chart: alt.TopLevelMixin) -> Drawn:
    """The chart in the style of the page. Its width is that of the page, or ``STATIC_WIDTH`` in its picture."""
    spec = {**chart.to_dict(), "config": CONFIG}
    fixed = json.loads(json.dumps(spec).replace('"width": "container"', f'"width": {STATIC_WIDTH}'))
    return Drawn(spec, vl_convert.vegalite_to_svg({**fixed, "padding": ROOM}))


def colours(shown: Sequence[Family]) -> alt.Scale:
    named = [name for name in FAMILIES if name in shown]
    return alt.Scale(domain=named, range=[FAMILIES[name] for name in named])


def tradeoff(rows: Sequence[Row], distance: str, lead: str) -> Drawn | None:
    """Distance against speed-up: a point for each arm, with the interval of its distance.

    A list chooses the network; that of the picture is ``lead``. None if no distance or no speed-up was measured.
    """
    measured = [row for row in whole_and_pruned(rows) if row.cells["distance"].value and row.cells["speedup"].value]
    points = [point_of(row) for row in measured]
    if not points:
        return None
    networks = list(dict.fromkeys(point["network"] for point in points))
    choice = alt.param(name="network", value=lead, bind=alt.binding_select(options=networks, name="Network "))
    kind = alt.selection_point(fields=["kind"], bind="legend")
    spread = max(point["high"] for point in points) > 8 * min(point["distance"] for point in points)
    scale = alt.Scale(type="log", padding=20) if spread else alt.Scale(zero=False, nice=False, padding=20)
    base = alt.Chart({"values": points}).transform_filter("datum.network == network")
    base = base.encode(
        x=alt.X(
            "speed-up:Q",
            title="speed-up of sampling (×) →",
            scale=alt.Scale(zero=False, padding=24),
            axis=alt.Axis(tickCount=6, grid=False),
        ),
        color=alt.Color("kind:N", scale=colours([point["kind"] for point in points]), title=None, legend=NARROW),
        opacity=alt.condition(kind, alt.value(0.9), alt.value(0.07)),
        tooltip=["method:N", "blocks:N", alt.Tooltip("shown:N", title=distance), SHOWN_SPEED, "seeds:Q"],
    )
    below = alt.Y("low:Q", title=f"← {distance}, lower is better", scale=scale)
    bars = base.mark_rule(strokeWidth=1.5).encode(y=below, y2="high:Q")
    dots = base.mark_circle(size=90, stroke="var(--page)", strokeWidth=1).encode(y=alt.Y("distance:Q", scale=scale))
    return drawn((bars + dots).add_params(choice, kind).properties(width="container", height=360))


def point_of(row: Row) -> dict[str, Any]:
    """What the chart of distance against speed-up knows of an arm."""
    near = row.cells["distance"]
    assert near.value is not None
    low, high = near.interval or (near.value, near.value)
    return {
        "network": row.where,
        "method": row.label,
        "kind": family(row.seeds[0]),
        "blocks": row.identity["blocks"],
        "seeds": len(row.seeds),
        "speed-up": row.cells["speedup"].value,
        "distance": near.value,
        "low": low,
        "high": high,
        "shown": near.text(),
    }


def whole_and_pruned(rows: Sequence[Row]) -> Iterator[Row]:
    """The pruned arms, and the first unpruned one of each network."""
    seen = set()
    for row in rows:
        if family(row.seeds[0]) != "unpruned" or row.where not in seen:
            yield row
        if family(row.seeds[0]) == "unpruned":
            seen.add(row.where)


def block_map(rows: Sequence[Row], ced: Scores | None) -> Drawn:
    """The blocks that each arm kept. A row above them shows CED: the darker, the larger."""
    order = list(dict.fromkeys(row.label for row in rows))
    cells = [
        {"row": row.label, "block": block, "colour": FAMILIES[family(row.seeds[0])], "strength": 1.0, "is": "kept"}
        if block in row.seeds[0].kept_blocks
        else {"row": row.label, "block": block, "colour": "var(--line)", "strength": 1.0, "is": "removed"}
        for row in rows
        for block in range(row.seeds[0].depth)
    ]
    if ced is not None:
        order, largest = ["CED", *order], max(ced.value) or 1.0
        cells += [
            {"row": "CED", "block": b, "colour": "var(--ink)", "strength": max(v / largest, 0.04), "is": f"CED {v:.3g}"}
            for b, v in zip(ced.blocks, ced.value, strict=True)
        ]
    chart = (
        alt.Chart({"values": cells})
        .mark_rect(cornerRadius=4, stroke="var(--page)", strokeWidth=4)
        .encode(
            x=alt.X("block:O", title="block of the unpruned network", axis=alt.Axis(labelAngle=0, **BARE)),
            y=alt.Y("row:N", sort=order, title=None, axis=alt.Axis(labelLimit=150, **BARE)),
            color=alt.Color("colour:N", scale=None),
            opacity=alt.Opacity("strength:Q", scale=None),
            tooltip=["row:N", "block:O", "is:N"],
        )
        .properties(width="container", height=40 * len(order))
    )
    return drawn(chart)


def votes(decisions: Sequence[Mapping[str, Any]]) -> Drawn | None:
    """The ranks that each candidate of a stage got from the two proxies. The lowest sum wins. None if nobody voted."""
    bars = list(ranks(decisions))
    if not bars:
        return None
    proxies = alt.Scale(domain=list(PROXIES.values()), range=["var(--ntk)", "var(--zico)"])
    chart = (
        alt.Chart({"values": bars})
        .mark_bar(cornerRadius=3, height=14)
        .encode(
            y=alt.Y("candidate:N", sort=None, title=None, axis=alt.Axis(labelLimit=200, **BARE)),
            x=alt.X(
                "rank:Q",
                title="sum of the ranks: the lowest wins",
                axis=alt.Axis(tickMinStep=1, format="d", grid=False),
            ),
            color=alt.Color("proxy:N", scale=proxies, title=None),
            opacity=alt.condition("datum.chosen", alt.value(1), alt.value(0.3)),
            tooltip=["candidate:N", "blocks:N", "proxy:N", "rank:Q", "chosen:N"],
        )
        .properties(width="container", height=26 * len({bar["candidate"] for bar in bars}))
    )
    return drawn(chart)


def ranks(decisions: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The weighted rank of each candidate by each proxy, at the stages that had a vote."""
    for decision in decisions:
        for candidate in decision["candidates"]:
            for proxy, name in PROXIES.items():
                if candidate.get(f"rank_{proxy}") is not None:
                    yield {
                        "candidate": f"stage {decision['stage']}: {removing(candidate, decision)}",
                        "proxy": name,
                        "rank": decision["weights"][proxy] * candidate[f"rank_{proxy}"],
                        "blocks": ", ".join(map(str, candidate["dropped"])) or "none",
                        "chosen": candidate["removed"] == decision["removed"],
                    }


def removing(candidate: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    return f"remove {candidate['removed'] - decision['removed_before']}"


def curves(arms: Mapping[str, tuple[Family, str]], found: Mapping[str, Sequence[tuple[float, float]]]) -> Drawn | None:
    """Training loss against step. ``arms`` has the kind and the label of each arm. None if there are no curves."""
    points: list[dict[str, Any]] = [
        {"step": step, "loss": loss, "kind": arms[key][0], "method": arms[key][1]}
        for key in arms
        for step, loss in found.get(key, ())
    ]
    if not points:
        return None
    near = alt.selection_point(nearest=True, on="pointerover", fields=["step"], empty=False)
    base = alt.Chart({"values": points}).encode(
        x=alt.X("step:Q", title="training step", axis=alt.Axis(grid=False, tickCount=8)),
        y=alt.Y("loss:Q", title="training loss", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(tickCount=5)),
        color=alt.Color("kind:N", scale=colours([point["kind"] for point in points]), title=None),
        detail="method:N",
    )
    lines = base.mark_line(strokeWidth=1.8, clip=True)
    dots = base.mark_circle(size=60).encode(
        opacity=alt.condition(near, alt.value(1), alt.value(0)),
        tooltip=["method:N", "step:Q", alt.Tooltip("loss:Q", format=".4f")],
    )
    return drawn((lines + dots.add_params(near)).properties(width="container", height=300))


def library() -> str:
    """The JavaScript of Vega, Vega-Lite and vega-embed, which draws the charts without a network."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed").replace("</script", "<\\/script")
