"""What the jobs of the audit compute: sub-networks, each recovered and sampled from, proxies, schedules, rankings.

What only the run itself knows is assumed: every candidate regime is tried and the dearest is taken, and no two criteria
choose the same blocks.
"""

import math
from itertools import pairwise

from entpruner.params.audit import Audit, Regime
from entpruner.params.pruning import blocks_to_remove, removal_grid, stage_boundaries
from entpruner.params.scoring import Scoring
from entpruner.planning import fits
from entpruner.planning.jobs import Job
from entpruner.planning.networks import Work
from entpruner.planning.work import Planned, voted
from entpruner.study.arms import overridden


class PlannedAudit:
    """The audit of one backbone."""

    def __init__(self, planned: Planned, audit: Audit, backbone: str) -> None:
        self.study, self.audit = planned.study, audit
        self.network = planned.network(backbone, audit.data)
        self.criteria = audit.criteria_for(planned.study.backbones[backbone])
        self.sampling = planned.study.sampling.model_copy(update={"samples": audit.samples})
        first = next(iter(planned.study.evaluation.extractors.values()))
        net, real = planned.net(first, audit.data), planned.images[audit.data].train
        self.real = Work(features=real * net)
        self.seen = Work(sampling=planned.decoded(audit.data), features=net)  # of a sampled image
        self.fit = fits.frechet(real, audit.samples, planned.width(first))
        self.regime = max(audit.regime.candidates, key=lambda tried: self.measured(self.left(tried), tried.steps).flops)

    def work(self, part: str) -> Work:
        return {
            "regime": self.trials,
            "masks": self.masks,
            "scores": self.scores,
            "choices": self.choices,
            "proxies": self.proxies,
            "schedules": self.schedules,
            "stability": self.stability,
            "report": Work,
        }[part]()

    def left(self, regime: Regime) -> int:
        return self.network.depth - blocks_to_remove(self.network.depth, regime.ratio)

    def measured(self, blocks: int, steps: int, before: bool = False) -> Work:
        """One sub-network: its loss, the distance before recovery where that is asked for, recovery, the distance."""
        work = Work(
            steps=steps,
            training=steps * self.study.finetune.batch_size * self.network.step(blocks),
            scoring=self.study.scoring.draws * self.network.forward(blocks),
        )
        return work + self.distance(blocks) * (2 if before else 1)

    def distance(self, blocks: int) -> Work:
        """Of one sub-network's samples to the real images."""
        sampled = self.seen + Work(sampling=self.network.sampled(blocks, self.sampling))
        return sampled * self.audit.samples + Work(fits=self.fit)

    def trials(self) -> Work:
        work = self.real
        for regime in self.audit.regime.candidates:
            runs = self.audit.regime.masks * self.audit.regime.repeats
            work += self.measured(self.left(regime), regime.steps) * runs
        return work

    def masks(self) -> Work:
        depth, left, steps = self.network.depth, self.left(self.regime), self.regime.steps
        masks = min(self.audit.masks, math.comb(depth, left))
        work = self.real + self.measured(depth, steps, before=True)
        work += self.measured(depth - 1, steps, before=True) * depth
        work += self.measured(left, steps, before=True) * masks
        for blocks in self.chained():
            work += self.measured(blocks, steps)
        return work

    def chained(self) -> list[int]:
        """Blocks left in each network of the nested chains, which are measured for the proxies alone."""
        depth, proxies = self.network.depth, self.audit.proxies
        left = [depth - blocks_to_remove(depth, ratio) for ratio in proxies.ratios]
        return left * proxies.chains if self.network.transformer else []

    def scores(self) -> Work:
        depth = self.network.depth
        rankings = [
            self.network.scores(
                audited.criterion,
                overridden(self.study.scoring, audited.scoring),
                self.study.sampling,
                depth,
                depth - self.left(self.regime),
            )
            for audited in self.criteria.values()
        ]
        return sum(rankings, Work())

    def choices(self) -> Work:
        return self.real + self.measured(self.left(self.regime), self.regime.steps) * len(self.criteria)

    def proxies(self) -> Work:
        """The largest number of batches serves the smaller ones; each number of samples is drawn anew."""
        audit, proxies = self.audit.proxies, self.study.proxies
        left = self.left(self.regime)
        masks = min(self.audit.masks, math.comb(self.network.depth, left))
        largest = proxies.zico.model_copy(update={"batches": max(audit.batches)})
        sizes = [proxies.ntk.model_copy(update={"samples": samples}) for samples in audit.samples]
        once = sum(
            self.network.zico(blocks, largest) + sum(self.network.ntk(blocks, size) for size in sizes)
            for blocks in [left] * masks + self.chained()
        )
        return Work(proxies=audit.repeats * once)

    def schedules(self) -> Work:
        """Of each regime: one-shot, linear, vote and random vote; the last three again, at the FLOPs of the first; and
        the vote with each weight."""
        audit, work = self.audit.schedules, self.real + self.ced(self.study.scoring)
        paper = Regime(ratio=audit.ratio, steps=self.audit.steps_of(self.study.finetune))
        for regime in (paper, self.regime):
            one_shot, staged = self.scheduled(regime, 1), self.scheduled(regime, self.study.pruning.stages)
            work += one_shot * 4 + staged * (3 + len(audit.weights))
            work += self.votes(regime) * (2 + len(audit.weights))
        return work

    def scheduled(self, regime: Regime, stages: int) -> Work:
        """One schedule's steps, whose network shrinks step by step along the grid, and its distance."""
        batch, depth = self.study.finetune.batch_size, self.network.depth
        grid = removal_grid(depth - self.left(regime), stages)
        bounds = stage_boundaries(stages, self.study.pruning.fraction, regime.steps)
        lengths = [stop - start for start, stop in pairwise(bounds)]
        left = [depth - removed for removed in (*grid[1:], grid[-1])]
        training = sum(steps * batch * self.network.step(blocks) for steps, blocks in zip(lengths, left, strict=True))
        return Work(steps=regime.steps, training=training) + self.distance(left[-1])

    def votes(self, regime: Regime) -> Work:
        pruning = self.study.pruning
        grid = removal_grid(self.network.depth - self.left(regime), pruning.stages)
        return sum(
            (
                voted(self.network, grid, stage, pruning.lookahead, self.study.proxies)
                for stage in range(1, pruning.stages + 1)
            ),
            Work(),
        )

    def stability(self) -> Work:
        """CED at each number of draws; of the network before it was adapted, and after the fine-tuning."""
        scoring, work = self.study.scoring, Work()
        for draws in sorted({*self.audit.stability.draws, scoring.draws}):
            work += self.ced(scoring.model_copy(update={"draws": draws})) * self.audit.stability.repeats
        steps = self.audit.steps_of(self.study.finetune)
        training = steps * self.study.finetune.batch_size * self.network.step(self.network.depth)
        work += self.ced(scoring) * (2 * self.audit.stability.repeats)
        return work + Work(steps=steps, training=training)

    def ced(self, scoring: Scoring) -> Work:
        return self.network.scores("ced", scoring, self.study.sampling, self.network.depth, 0)


def audited(planned: Planned, job: Job) -> Work:
    """Of a job of the audit's own, whose rule begins with ``audit_``, or of what else it needs."""
    if not job.rule.startswith("audit_"):
        return planned.work(job)
    assert planned.study.audit is not None, "there are no such jobs without an audit"
    if job.rule == "audit_report":
        return Work()
    return PlannedAudit(planned, planned.study.audit, job.backbone).work(job.rule.removeprefix("audit_"))
