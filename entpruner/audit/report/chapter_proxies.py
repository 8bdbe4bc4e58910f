"""Part 2: do NTK and ZiCo of a sub-network predict how it ends, and how noisy are they?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from entpruner.audit.report.evidence import Evidence
from entpruner.audit.report.page import Cell, Part, Table
from entpruner.audit.report.words import Verdict, listed, sorted_out
from entpruner.audit.statistics import Bootstrapped, Estimate, Floats, Resamples, bootstrap, proportion
from entpruner.audit.subnetworks import Measured
from entpruner.audit.sweeps import (
    Proxied,
    across,
    by_repeat,
    mean_agreement,
    mean_prediction,
    nested_pairs,
    within,
)
from entpruner.params.audit import AuditedProxies

METHOD = """\
NTK condition number κ and ZiCo of the inherited weights, before recovery, at several numbers of samples N and batches
D, each over independent draws of these; all sub-networks see the same ones. `draws agree`: Spearman's ρ over the
sub-networks between two draws, the mean over pairs of draws. `predicts`: ρ of what the proxy prefers (small κ, large
ZiCo) with the nearness to the real images after recovery, the mean over draws and seeds; positive is what the vote
takes for granted. First sub-networks of one size, the random sets of part 1; then nested ones of several depths, where
the number of blocks by itself stands beside the proxies. Intervals: hierarchical bootstrap over seeds, and within them
over sets or chains of nested sets; of chains in which the deeper is always higher, the exact one of a share."""
PREDICTS: dict[Verdict, str] = {
    "above": "What it prefers ends nearer to the real images",
    "below": "What it prefers ends further from the real images",
    "open": "Cannot be told apart from no relation",
    "undefined": "Not defined",
}
GROWS: dict[Verdict, str] = {
    "above": "Rises with the number of blocks",
    "below": "Falls with the number of blocks",
    "open": "Cannot be told apart from no trend",
    "undefined": "Not defined",
}


@dataclass(frozen=True)
class Proxy:
    """One proxy at one setting."""

    name: str
    prefers: int
    """1 where it prefers the larger value, -1 the smaller."""
    field: Literal["log10_kappa", "zico_sum", "zico_mean"]
    setting: int
    """Place in the sweep."""

    def values(self, record: Proxied) -> Sequence[float | None]:
        """By repeat."""
        found: Sequence[Sequence[float | None]] = getattr(record, self.field)
        return found[self.setting]


def proxies(sweeps: AuditedProxies) -> list[Proxy]:
    return [
        *(Proxy(f"κ (N = {n})", -1, "log10_kappa", i) for i, n in enumerate(sweeps.samples)),
        *(Proxy(f"ZiCo sum (D = {d})", 1, "zico_sum", i) for i, d in enumerate(sweeps.batches)),
        *(Proxy(f"ZiCo mean (D = {d})", 1, "zico_mean", i) for i, d in enumerate(sweeps.batches)),
    ]


@dataclass(frozen=True)
class Seed:
    masks: list[Proxied]
    mask_distance: Floats  # (masks,)
    chains: list[list[Proxied]]
    chain_distance: Floats  # (chains, members)
    kept: Floats  # (chains, members), blocks left

    def repeats(self, proxy: Proxy) -> tuple[Floats, ...]:
        """Over the masks, an array a repeat."""
        return by_repeat(self.masks, proxy.values)

    def chain_repeats(self, proxy: Proxy) -> tuple[Floats, ...]:
        """The same over the chains: (chains, members)."""
        return tuple(map(np.stack, zip(*(by_repeat(chain, proxy.values) for chain in self.chains), strict=True)))


def seeds_of(evidence: Evidence, backbone: str) -> tuple[list[Seed], AuditedProxies]:
    measured, found = (evidence.by_seed(part, backbone) for part in ("masks", "proxies"))
    seeds = []
    for masks, values in zip(measured, found, strict=True):
        chains = [[Measured(**record) for record in chain] for chain in masks["chains"]]
        depth = len(masks["blocks"])
        seeds.append(
            Seed(
                masks=[Proxied(**record) for record in values["masks"]],
                mask_distance=np.array([record["distance"] for record in masks["masks"]]),
                chains=[[Proxied(**record) for record in chain] for chain in values["chains"]],
                chain_distance=np.array([[record.distance for record in chain] for chain in chains]),
                kept=np.array([[depth - len(record.dropped) for record in chain] for chain in chains], float),
            )
        )
    return seeds, AuditedProxies.model_validate(found[0]["sweeps"])


def part(evidence: Evidence) -> Part:
    findings, tables = [], []
    longest = dict[str, Estimate | None]()
    for backbone in evidence.scope.transformers:
        seeds, sweeps = seeds_of(evidence, backbone)
        asked = proxies(sweeps)
        predictions, same, same_findings = of_one_size(backbone, seeds, asked)
        for proxy in asked:
            if proxy.setting == len(getattr(sweeps, "samples" if proxy.field == "log10_kappa" else "batches")) - 1:
                longest[f"{proxy.name} on {backbone}"] = predictions[proxy.name]
        nested, nested_findings = of_several_depths(backbone, seeds, asked)
        tables += [same, nested]
        findings += same_findings + nested_findings
    short = [f"**The proxies, over sub-networks of one size.** {sorted_out(longest, PREDICTS)}"] if longest else []
    return Part("Do the proxies predict how a sub-network ends?", METHOD, findings, tables, short=short)


def of_one_size(
    backbone: str, seeds: Sequence[Seed], asked: Sequence[Proxy]
) -> tuple[dict[str, Estimate | None], Table, list[str]]:
    """The predictions by name, and what is written of them."""
    resamples = Resamples.draw([len(seed.masks) for seed in seeds], "audit", "proxies", backbone)
    rows: list[list[Cell]] = []
    predictions = dict[str, Estimate | None]()
    for proxy in asked:
        agree = bootstrap([seed.repeats(proxy) for seed in seeds], mean_agreement, resamples)
        groups = [(-proxy.prefers * seed.mask_distance, *seed.repeats(proxy)) for seed in seeds]
        predictions[proxy.name] = bootstrap(groups, mean_prediction, resamples).estimate()
        lost = np.mean([np.isinf(repeat) for seed in seeds for repeat in seed.repeats(proxy)])
        rows.append([proxy.name, float(lost), agree.estimate(), predictions[proxy.name]])
    columns = {"proxy": "", "rank-deficient": ".0%", "draws agree": ".2f", "predicts": ".2f"}
    table = Table(f"proxies_{backbone}_one_size", f"{backbone}: sub-networks of one size", columns, rows)
    n = f"{len(seeds)} seeds × {len(seeds[0].masks)} sets"
    said = f"**{backbone}, sub-networks of one size** ({n}). {sorted_out(predictions, PREDICTS)}"
    return predictions, table, [said]


def of_several_depths(backbone: str, seeds: Sequence[Seed], asked: Sequence[Proxy]) -> tuple[Table, list[str]]:
    resamples = Resamples.draw([len(seed.chains) for seed in seeds], "audit", "depths", backbone)
    rows: list[list[Cell]] = []
    predictions, trends, deeper = dict[str, Estimate | None](), dict[str, Estimate | None](), []
    by_depth = bootstrap([(-seed.chain_distance, seed.kept) for seed in seeds], across(mean_prediction), resamples)
    rows.append(["number of blocks left", by_depth.estimate(), None, None, None])
    for proxy in asked:
        groups = [(-proxy.prefers * seed.chain_distance, *seed.chain_repeats(proxy)) for seed in seeds]
        predictions[proxy.name] = bootstrap(groups, across(mean_prediction), resamples).estimate()
        trends[proxy.name] = trend(proxy, seeds, resamples).estimate()
        pairs = [nested_pairs(chain) for seed in seeds for repeat in seed.chain_repeats(proxy) for chain in repeat]
        higher, total = sum(map(sum, pairs)), sum(map(len, pairs))
        always = chains_always_higher(proxy, seeds)
        rows.append([proxy.name, predictions[proxy.name], trends[proxy.name], f"{higher} of {total}", always])
        deeper.append(f"{proxy.name} {higher} of {total}")
    columns = {
        "proxy": "", "predicts": ".2f", "trend with depth": ".2f", "pairs with the deeper higher": "",
        "chains with the deeper always higher": ".2f",
    }  # fmt: skip
    table = Table(f"proxies_{backbone}_depths", f"{backbone}: nested sub-networks of several depths", columns, rows)
    n = f"{len(seeds)} seeds × {len(seeds[0].chains)} chains of {seeds[0].kept.shape[1]}"
    alone = {"the number of blocks left": by_depth.estimate()}
    return table, [
        f"**{backbone}, sub-networks of several depths** ({n}). {sorted_out(alone | predictions, PREDICTS)}",
        f"**{backbone}, trend with depth** ({n}; ρ of the proxy with the number of blocks left, within a chain). "
        f"{sorted_out(trends, GROWS)}",
        f"**{backbone}, two nested sub-networks.** The deeper has the higher value in: {listed(deeper)} pairs (all "
        "seeds, chains and draws).",
    ]


def trend(proxy: Proxy, seeds: Sequence[Seed], resamples: Resamples) -> Bootstrapped:
    groups = [(seed.kept, *seed.chain_repeats(proxy)) for seed in seeds]
    return bootstrap(groups, within(mean_prediction), resamples)


def chains_always_higher(proxy: Proxy, seeds: Sequence[Seed]) -> Estimate:
    """Share of chains along which, in every draw, the deeper of any two is higher: chains are the independent units."""
    always = [
        all(all(nested_pairs(repeat[chain])) for repeat in seed.chain_repeats(proxy))
        for seed in seeds
        for chain in range(len(seed.chains))
    ]
    return proportion(sum(always), len(always))
