"""Chapter 2: do NTK and ZiCo of a sub-network predict how it ends, and how noisy are they?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Cell, Chapter, Table
from entpruner.audit.report.words import Wording, listed
from entpruner.audit.statistics import Estimate, Floats, Resamples, Statistic, bootstrap, proportion, spearman
from entpruner.params.audit import AuditedProxies

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
    """A proxy at one number of samples (NTK) or of batches (ZiCo) that the audit measured it at."""

    name: str
    prefers: Literal[1, -1]
    """1 where it prefers the larger value, -1 where it prefers the smaller one."""
    field: Literal["log10_kappa", "zico_sum", "zico_mean"]
    setting: int
    """The position of this number among those that the audit measured."""

    def repeats(self, records: Any) -> Floats:
        """Its values: (repeats, ...), where the rest is the shape of ``records``, a list or a list of lists.

        A κ that does not exist ranks last, as it does in the vote.
        """
        values = array_of(records, self.field)[..., self.setting, :]
        return np.ascontiguousarray(np.moveaxis(np.where(np.isnan(values), np.inf, values), -1, 0))


def array_of(records: Any, field: str) -> Floats:
    """Read ``field`` of every record into an array. Records may be nested in lists, which become the first axes."""
    return np.array([array_of(r, field) if isinstance(r, list) else r[field] for r in records], dtype=float)


def proxies(sweeps: AuditedProxies) -> list[Proxy]:
    return [
        *(Proxy(f"κ (N = {n})", -1, "log10_kappa", i) for i, n in enumerate(sweeps.samples)),
        *(Proxy(f"ZiCo sum (D = {d})", 1, "zico_sum", i) for i, d in enumerate(sweeps.batches)),
        *(Proxy(f"ZiCo mean (D = {d})", 1, "zico_mean", i) for i, d in enumerate(sweeps.batches)),
    ]


def write(evidence: Evidence) -> Chapter:
    chapter = Chapter("Do the proxies predict how a sub-network ends?", METHOD)
    longest = dict[str, Estimate | None]()
    for backbone in evidence.scope.transformers:
        measured, found = (evidence.by_seed(kind, backbone) for kind in ("masks", "proxies"))
        asked = proxies(AuditedProxies.model_validate(found[0]["sweeps"]))
        predictions = of_one_size(chapter, backbone, measured, found, asked)
        last = {proxy.field: proxy.name for proxy in asked}  # of each kind, the one with most samples or batches
        longest |= {f"{name} on {backbone}": predictions[name] for name in last.values()}
        of_several_depths(chapter, backbone, measured, found, asked)
    chapter.short += [PREDICTS.finding("The proxies, over sub-networks of one size", longest)] if longest else []
    return chapter


def of_one_size(
    chapter: Chapter, backbone: str, measured: Sequence[Any], found: Sequence[Any], asked: Sequence[Proxy]
) -> dict[str, Estimate | None]:
    """Write what the proxies predict over the random sets; the predictions by name."""
    distances = [array_of(content["masks"], "distance") for content in measured]
    resamples = Resamples.draw([len(distance) for distance in distances], "audit", "proxies", backbone)
    rows: list[list[Cell]] = []
    predictions = dict[str, Estimate | None]()
    for proxy in asked:
        repeats = [proxy.repeats(content["masks"]) for content in found]
        agree = bootstrap([tuple(values) for values in repeats], mean_agreement, resamples).estimate()
        predictions[proxy.name] = predicted(proxy, distances, repeats, mean_prediction, resamples)
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
    distances = [array_of(content["chains"], "distance") for content in measured]  # each (chains, members)
    kept = [
        np.array([[len(content["blocks"]) - len(record["dropped"]) for record in chain] for chain in content["chains"]])
        for content in measured
    ]
    blocks = [values.astype(float) for values in kept]
    resamples = Resamples.draw([len(distance) for distance in distances], "audit", "depths", backbone)
    by_depth = bootstrap(
        [(-distance, left) for distance, left in zip(distances, blocks, strict=True)],
        across(mean_prediction),
        resamples,
    ).estimate()
    rows: list[list[Cell]] = [["number of blocks left", by_depth, None, None, None]]
    predictions = {"the number of blocks left": by_depth}
    trends, deeper = dict[str, Estimate | None](), []
    for proxy in asked:
        repeats = [proxy.repeats(content["chains"]) for content in found]
        predictions[proxy.name] = predicted(proxy, distances, repeats, across(mean_prediction), resamples)
        along = [(left, *values) for left, values in zip(blocks, repeats, strict=True)]
        trends[proxy.name] = bootstrap(along, within(mean_prediction), resamples).estimate()
        higher = np.concatenate([deeper_is_higher(values) for values in repeats], axis=-1)  # (pairs, repeats, chains)
        always = higher.all(axis=(0, 1))
        share = proportion(int(np.sum(always)), np.size(always))  # chains, not pairs, are independent of each other
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


def predicted(
    proxy: Proxy, distances: Sequence[Floats], repeats: Sequence[Floats], statistic: Statistic, resamples: Resamples
) -> Estimate | None:
    """How well what the proxy prefers predicts nearness to the real images."""
    groups = [(-proxy.prefers * distance, *values) for distance, values in zip(distances, repeats, strict=True)]
    return bootstrap(groups, statistic, resamples).estimate()


def mean_agreement(*repeats: Floats) -> Floats:
    """Mean Spearman correlation of any two repeats, each (..., n)."""
    return np.mean([spearman(one, other) for one, other in combinations(repeats, 2)], axis=0)


def mean_prediction(target: Floats, *repeats: Floats) -> Floats:
    """Mean over the repeats of Spearman's correlation with a target, each (..., n)."""
    return np.mean([spearman(values, target) for values in repeats], axis=0)


def across(statistic: Statistic) -> Statistic:
    """A statistic of the members of all chains together: arrays are (..., chains, members)."""
    return lambda *arrays: statistic(*(array.reshape(*array.shape[:-2], -1) for array in arrays))


def within(statistic: Statistic) -> Statistic:
    """The mean over chains of a statistic within each: arrays are (..., chains, members)."""
    return lambda *arrays: statistic(*arrays).mean(-1)


def deeper_is_higher(values: Floats) -> NDArray[np.bool_]:
    """Whether the deeper of any two members of a chain has the higher value: (..., members) -> (pairs, ...).

    The members of a chain stand from the deepest to the shallowest.
    """
    pairs = [values[..., i] > values[..., j] for i, j in combinations(range(values.shape[-1]), 2)]
    return np.array(pairs, dtype=bool).reshape(-1, *values.shape[:-1])  # a chain of one member has no pairs
