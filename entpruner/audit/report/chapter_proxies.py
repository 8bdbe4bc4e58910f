"""Chapter 2: whether NTK and ZiCo of a sub-network predict its distance after recovery, and how noisy they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.forest import forest
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import Wording, listed
from entpruner.audit.statistics import (
    Estimate,
    Floats,
    Resamples,
    Statistic,
    bootstrap,
    mean_agreement,
    mean_prediction,
    proportion,
)
from entpruner.params.audit import AuditedProxies
from entpruner.reporting.words import spoken

METHOD = """\
NTK condition number κ and ZiCo of the inherited weights, before recovery, at several numbers of samples N and batches
D, each over independent draws of these; all sub-networks see the same ones. `draws agree`: Spearman's ρ over the
sub-networks between two draws, the mean over pairs of draws. `predicts`: ρ of what the proxy prefers (small κ, large
ZiCo) with the nearness to the real images after recovery, the mean over draws and seeds; positive is what the vote
takes for granted. First sub-networks of one size, the random sets of part 1; then nested ones of several depths, where
the number of blocks by itself stands beside the proxies. Intervals: hierarchical bootstrap over seeds, and within them
over sets or chains of nested sets; of chains in which the deeper is always higher, the exact one of a share."""
PREDICTS = Wording(
    above="what it prefers ends nearer to the real images",
    below="what it prefers ends further from the real images",
    nothing="no relation",
)
GROWS = Wording("rises with the number of blocks", "falls with the number of blocks", "no trend")


@dataclass(frozen=True)
class Proxy:
    """A proxy with one number of samples (NTK) or of batches (ZiCo)."""

    name: str
    prefers: Literal[1, -1]
    """1 if the vote prefers the larger value, -1 if it prefers the smaller value."""
    field: Literal["log10_kappa", "zico_sum", "zico_mean"]
    """The field of the records that holds the values, an array (numbers of samples or batches, repeats)."""
    setting: int
    """The position of the number of samples or batches in this array."""

    def repeats(self, records: Any) -> Floats:
        """The values of a list of sub-networks (repeats, n), or of a list of chains (repeats, chains, members).

        A condition number that does not exist becomes infinite, so that it ranks last, as it does in the vote.
        """
        values = array_of(records, self.field)[..., self.setting, :]
        return np.ascontiguousarray(np.moveaxis(np.where(np.isnan(values), np.inf, values), -1, 0))


def array_of(records: Any, field: str) -> Floats:
    """A field of every record as an array. Records may be nested in lists, which become the first axes."""
    return np.array([array_of(r, field) if isinstance(r, list) else r[field] for r in records], dtype=float)


def proxies(sweeps: AuditedProxies) -> list[Proxy]:
    """Every proxy with every number of samples or batches that it was measured with."""
    return [
        *(Proxy(f"κ (N = {n})", -1, "log10_kappa", i) for i, n in enumerate(sweeps.samples)),
        *(Proxy(f"ZiCo sum (D = {d})", 1, "zico_sum", i) for i, d in enumerate(sweeps.batches)),
        *(Proxy(f"ZiCo mean (D = {d})", 1, "zico_mean", i) for i, d in enumerate(sweeps.batches)),
    ]


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Do the proxies predict how a sub-network ends?", METHOD)
    longest, shown = dict[str, Estimate | None](), dict[str, dict[str, Estimate | None]]()
    for backbone in evidence.scope.proxied:
        measured, found = (evidence.by_seed(kind, backbone) for kind in ("masks", "proxies"))
        asked = proxies(AuditedProxies.model_validate(found[0]["sweeps"]))
        predictions = of_one_size(chapter, backbone, measured, found, asked)
        last = {proxy.field: proxy.name for proxy in asked}  # of each kind, the proxy with most samples or batches
        longest |= {f"{name} on {spoken(backbone)}": predictions[name] for name in last.values()}
        for name, prediction in predictions.items():
            shown.setdefault(name, {})[spoken(backbone)] = prediction
        of_several_depths(chapter, backbone, measured, found, asked)
    if shown:
        caption = "Rank correlation of what each proxy prefers with the nearness to the real images, over random sets"
        panel = {"over sub-networks of one size": shown}
        chapter.figures["proxies"] = (caption, partial(forest, panel, "Spearman's ρ with nearness after recovery"))
    chapter.short += [PREDICTS.finding("The proxies, over sub-networks of one size", longest)] if longest else []
    return chapter


def of_one_size(
    chapter: Chapter, backbone: str, measured: Sequence[Any], found: Sequence[Any], asked: Sequence[Proxy]
) -> dict[str, Estimate | None]:
    """Write what the proxies predict over the random sets, and return it by the names of the proxies."""
    distances = [array_of(content["masks"], "distance") for content in measured]
    resamples = Resamples.draw([len(distance) for distance in distances], "audit", "proxies", backbone)
    rows, predictions = list[list[Cell]](), dict[str, Estimate | None]()
    for proxy in asked:
        repeats = [proxy.repeats(content["masks"]) for content in found]
        agree = bootstrap([tuple(values) for values in repeats], mean_agreement, resamples).estimate()
        predictions[proxy.name] = predicted(proxy.prefers, distances, repeats, mean_prediction, resamples)
        lost = float(np.mean([np.isinf(values) for values in repeats]))
        rows.append([proxy.name, lost, agree, predictions[proxy.name]])
    columns = {"proxy": "", "rank-deficient": ".0%", "draws agree": ".2f", "predicts": ".2f"}
    chapter.tables.append(Table(f"proxies_{backbone}_one_size", f"{backbone}: sub-networks of one size", columns, rows))
    n = f"{len(distances)} seeds × {len(distances[0])} sets"
    chapter.findings.append(f"**{backbone}, sub-networks of one size** ({n}). {PREDICTS.of(predictions)}")
    return predictions


def of_several_depths(
    chapter: Chapter, backbone: str, measured: Sequence[Any], found: Sequence[Any], asked: Sequence[Proxy]
) -> None:
    """Write what the proxies predict over chains of nested sub-networks, and how they change along a chain."""
    distances = [array_of(content["chains"], "distance") for content in measured]  # of each seed (chains, members)
    left = [blocks_left(content)[None] for content in measured]  # of each seed (1, chains, members)
    resamples = Resamples.draw([len(distance) for distance in distances], "audit", "depths", backbone)
    by_depth = predicted(1, distances, left, across(mean_prediction), resamples)
    rows: list[list[Cell]] = [["number of blocks left", by_depth, None, None, None]]
    predictions, trends, deeper = {"the number of blocks left": by_depth}, dict[str, Estimate | None](), []
    for proxy in asked:
        repeats = [proxy.repeats(content["chains"]) for content in found]
        predictions[proxy.name] = predicted(proxy.prefers, distances, repeats, across(mean_prediction), resamples)
        along = [(*blocks, *values) for blocks, values in zip(left, repeats, strict=True)]
        trends[proxy.name] = bootstrap(along, within(mean_prediction), resamples).estimate()
        higher = np.concatenate([deeper_is_higher(values) for values in repeats], axis=-1)  # (pairs, repeats, chains)
        always = higher.all(axis=(0, 1))
        share = proportion(int(np.sum(always)), np.size(always))  # of chains, because pairs depend on each other
        count = f"{higher.sum()} of {higher.size}"
        rows.append([proxy.name, predictions[proxy.name], trends[proxy.name], count, share])
        deeper.append(f"{proxy.name} {count}")
    columns = {
        "proxy": "", "predicts": ".2f", "trend with depth": ".2f", "pairs with the deeper higher": "",
        "chains with the deeper always higher": ".2f",
    }  # fmt: skip
    caption = f"{backbone}: nested sub-networks of several depths"
    chapter.tables.append(Table(f"proxies_{backbone}_depths", caption, columns, rows))
    n = f"{len(distances)} seeds × {len(distances[0])} chains of {distances[0].shape[1]}"
    chapter.findings += [
        f"**{backbone}, sub-networks of several depths** ({n}). {PREDICTS.of(predictions)}",
        f"**{backbone}, trend with depth** ({n}; ρ of the proxy with the number of blocks left, within a chain). "
        f"{GROWS.of(trends)}",
        f"**{backbone}, two nested sub-networks.** The deeper has the higher value in: {listed(deeper)} pairs (all "
        "seeds, chains and draws).",
    ]


def blocks_left(content: Any) -> Floats:
    """The numbers of blocks that the nested sub-networks of a seed keep: (chains, members)."""
    depth = len(content["blocks"])
    return np.array([[depth - len(record["dropped"]) for record in chain] for chain in content["chains"]], dtype=float)


def predicted(
    prefers: int, distances: Sequence[Floats], repeats: Sequence[Floats], statistic: Statistic, resamples: Resamples
) -> Estimate | None:
    """How well the preferred value predicts nearness to the real images.

    ``prefers`` is 1 if the larger value is preferred and -1 if the smaller is. For each seed there are the distances
    (...) and the values of some repeats (repeats, ...), which ``statistic`` correlates.
    """
    groups = [(-prefers * distance, *values) for distance, values in zip(distances, repeats, strict=True)]
    return bootstrap(groups, statistic, resamples).estimate()


def across(statistic: Statistic) -> Statistic:
    """The statistic over the members of all chains together, for arrays (..., chains, members)."""
    return lambda *arrays: statistic(*(array.reshape(*array.shape[:-2], -1) for array in arrays))


def within(statistic: Statistic) -> Statistic:
    """The mean over chains of the statistic within a chain, for arrays (..., chains, members)."""
    return lambda *arrays: statistic(*arrays).mean(-1)


def deeper_is_higher(values: Floats) -> NDArray[np.bool_]:
    """For each pair of members of a chain, whether the deeper one has the higher value: (..., members) -> (pairs, ...).

    The members of a chain are ordered from the deepest to the shallowest.
    """
    pairs = [values[..., i] > values[..., j] for i, j in combinations(range(values.shape[-1]), 2)]
    return np.array(pairs, dtype=bool).reshape(-1, *values.shape[:-1])  # a chain of one member has no pairs
