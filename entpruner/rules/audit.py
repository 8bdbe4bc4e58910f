"""The rules of the audit, which measures what score, proxies and schedule are worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from entpruner.errors import UserError
from entpruner.layout import MODEL, Artefact, Layout, file, folder
from entpruner.params.audit import Audit, AuditedCriterion, AuditedProxies, Regime, RegimeTrials
from entpruner.params.base import Frozen
from entpruner.params.evaluation import Evaluation
from entpruner.params.files import REFERENCE
from entpruner.params.latents import Latents
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import Pruning
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning, OptimizerName
from entpruner.rules.evaluate import features_held
from entpruner.rules.report import costs
from entpruner.rules.rule import TRAINING_MEMORY, Given, Job, Rule, Seeded
from entpruner.sizes import memory, nets
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import Network, Work
from entpruner.study.arms import Arm, ArmIdentity, claimed
from entpruner.study.resolved import ResolvedStudy

REDRAWS = 20
"""The number of independent draws of the proxies' samples on which a vote is cast again."""

# ------------------------------------------------------------------------------------------------------------ settings


class AuditSettings(Seeded):
    """Settings of every rule that measures. All rules of a backbone share their draws."""

    scoring: Scoring


class BenchSettings(AuditSettings):
    """Settings of the rules that recover sub-networks, sample from them, and measure their distance to real images."""

    sampling: Sampling
    finetune: Finetuning
    """The study's fine-tuning. A recovery is this training, shrunk to the steps of the regime."""
    evaluation: Evaluation
    latents: Latents | None = None
    """The latents that the networks work on. None where they work on pixels."""


class RegimeSettings(BenchSettings):
    trials: RegimeTrials


class MasksSettings(BenchSettings):
    masks: int
    chains: int
    """The number of chains of nested sets. Only the proxies need them."""
    ratios: tuple[float, ...]
    """The shares of blocks that the members of a chain lack."""


class ScoresSettings(AuditSettings):
    sampling: Sampling
    """The study's own sampling, for the criteria that sample."""
    criteria: dict[str, AuditedCriterion]


class ProxiesSettings(AuditSettings):
    proxies: Proxies
    sweeps: AuditedProxies


class SchedulesSettings(BenchSettings):
    pruning: Pruning
    proxies: Proxies
    paper: Regime
    """A ratio of the paper with the study's fine-tuning. The other regime is the one that the audit chose."""
    weights: tuple[float, ...]
    """NTK's weights in the vote. ZiCo's weight is 1 minus that of NTK."""


class StabilitySettings(AuditSettings):
    draws: tuple[int, ...]
    repeats: int
    finetune: Finetuning
    steps: int
    """The steps of the fine-tuning after which the blocks are ranked again."""


class StagesSettings(BenchSettings):
    pruning: Pruning
    """That of the arm that is followed, as are the proxies."""
    proxies: Proxies
    optimizer: OptimizerName
    """What trained the arm, whose training states are read."""
    redraws: int
    """The number of independent draws of the proxies' samples."""


class OutputsSettings(AuditSettings):
    sampling: Sampling
    samples: int
    """The number of images to sample from the network and from the network without each block."""


# --------------------------------------------------------------------------------------------------- rules that measure


class AuditRule(Rule):
    """A rule of the audit that measures one backbone."""

    room, resumes, on_gpu, copies = "audit.commands", True, True, 7
    lower = f"scoring.batch_size, sampling.batch_size, {TRAINING_MEMORY}"
    kind: ClassVar[type[AuditSettings]] = BenchSettings
    """The class of the rule's settings."""
    reads: ClassVar[tuple[str, ...]] = ("regime",)
    """The parts of the audit that the command reads. They are also the names of its options."""
    ranks_by: ClassVar[tuple[str, ...]] = ()
    """The criteria by which the command itself ranks blocks."""
    per_seed: ClassVar[bool] = True
    """False for a rule that has one job for all seeds, which takes the first seed."""

    @property
    def part(self) -> str:
        """The name of what the rule measures, which is the name of its folder in the results."""
        return self.name.removeprefix("audit_")

    @property
    def benched(self) -> bool:
        """Whether the rule recovers sub-networks and samples from them."""
        return issubclass(self.kind, BenchSettings)

    @property
    def knows_all(self) -> bool:
        """Whether the rule can measure any backbone. The proxies, and the votes by them, know DiT and SiT only."""
        return "proxies" not in self.kind.model_fields

    def seed(self, study: ResolvedStudy, job: Job) -> int:
        return job.seed if self.per_seed else audit_of(study).seeds[0]

    def jobs(self, study: ResolvedStudy, backbone: str) -> Sequence[int | None]:
        """The seeds with which a backbone is measured. None stands for all seeds together."""
        return audit_of(study).seeds if self.per_seed else (None,)

    def criteria(self, study: ResolvedStudy, job: Job) -> Sequence[str]:
        return self.ranks_by

    def settings(self, study: ResolvedStudy, job: Job) -> AuditSettings:
        """The settings are collected by name: a section of the study, or what the audit says under this name."""
        audit, params, backbone = audit_of(study), study.params, study.params.backbones[job.backbone]
        fewer = params.sampling.model_copy(update={"samples": audit.samples})
        steps = audit.steps_of(params.finetune)
        known: dict[str, Any] = {
            **dict(params),
            "artefact": f"audit/{job.backbone}-{audit.data}",
            "seed": self.seed(study, job),
            "compute": study.compute,
            "sampling": fewer if self.benched else params.sampling,
            "trials": audit.regime,
            "masks": audit.masks,
            "chains": audit.proxies.chains if backbone.proxied else 0,
            "ratios": audit.proxies.ratios,
            "criteria": audit.criteria_for(backbone),
            "sweeps": audit.proxies,
            "paper": Regime(ratio=audit.schedules.ratio, steps=steps),
            "weights": audit.schedules.weights,
            "draws": audit.stability.draws,
            "repeats": audit.stability.repeats,
            "steps": steps,
            "optimizer": params.finetune.optimizer,
            "redraws": REDRAWS,
            "samples": audit.samples,
        }
        return self.kind(**{name: known[name] for name in self.kind.model_fields})

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        data, seed = audit_of(study).data, self.seed(study, job)
        start = folder(study.start(job.backbone, data, seed).path, MODEL)
        given: dict[str, Artefact | None] = {"store": study.store(data), "init": start}
        if self.benched:
            given["pixels"] = study.paths.pixels(data)
            given["classifier"] = study.classifier(data)
            given["autoencoder"] = study.autoencoder()
        parts = {part: study.paths.audit(part, job.backbone, None if part == "regime" else seed) for part in self.reads}
        return given | parts

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.audit(self.part, "{backbone}", "{seed}" if self.per_seed else None)}

    def network(self, study: ResolvedStudy, job: Job) -> Network:
        return study.network(job.backbone, audit_of(study).data)

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        """The number of sub-networks that are recovered and sampled from, and the number of rankings of all blocks.

        A sub-network whose proxies are measured counts as a ranking of one block.
        """
        audit, depth = audit_of(study), self.network(study, job).depth
        trials, sweeps, asked = audit.regime, audit.proxies, audit.stability
        nested = sweeps.chains * len(sweeps.ratios) if study.params.backbones[job.backbone].proxied else 0
        # Every number of draws counts as the largest. The network is also ranked before and after it was trained.
        redrawn = len(asked.draws) * max(max(asked.draws) / study.params.scoring.draws, 1)
        return {
            "regime": (len(trials.candidates) * trials.masks * trials.repeats, 0),
            "masks": (1 + depth + audit.masks + nested, 0),
            "scores": (0, len(audit.criteria_for(study.params.backbones[job.backbone]))),
            "choices": (len(audit.criteria), 0),
            "proxies": (0, (audit.masks + nested) * sweeps.repeats / depth),
            # In each of two regimes: four schedules, three of them again at equal FLOPs, and a vote for each weight.
            "schedules": (2 * (7 + len(audit.schedules.weights)), 1),
            "stability": (1, asked.repeats * (redrawn + 2)),
        }[self.part]

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """Each sub-network counts as large as the whole network, and as long recovered as in the longest regime."""
        network, params, audit = self.network(study, job), study.params, audit_of(study)
        measured, ranked = self.counts(study, job)
        steps = max(regime.steps for regime in audit.regime.candidates)
        recovered = network.trained(network.depth, params.finetune, steps)
        ranking = network.scores("ced", params.scoring, params.sampling, network.depth, 0)
        trainings = Work(steps=steps, training=recovered.training)
        return (trainings + self.sampled(study, job)) * measured + ranking * ranked

    def sampled(self, study: ResolvedStudy, job: Job) -> Work:
        """The images that a distance is measured on, from the whole network."""
        network, params, audit = self.network(study, job), study.params, audit_of(study)
        one = network.sampled(network.depth, params.sampling)
        if params.latents:
            one += nets.coded(params.latents, params.datasets[audit.data].image_size, decode=True)
        seen = nets.features(params.evaluation, params.datasets[audit.data])
        return Work(sampling=one, measuring=seen) * audit.samples

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        """The largest of the things that a job does one after the other: ranking, proxies, recovery and sampling."""
        params, shape, audit = study.params, self.network(study, job).architecture, audit_of(study)
        parts = [memory.scoring(shape, "ced", params.scoring, params.sampling)]
        if not self.knows_all:
            parts.append(memory.swept(shape, params.proxies, audit.proxies))
        if "finetune" in self.kind.model_fields:
            batch_size, compute = params.finetune.batch_size, params.compute.alone
            parts.append(memory.bench(shape, batch_size, compute, params.sampling, params.latents))
        return memory.largest(parts)

    def held(self, study: ResolvedStudy, job: Job) -> float:
        audit = audit_of(study)
        return features_held(study, audit.data, audit.samples) if self.benched else 0.0


class ChooseRegime(AuditRule):
    """Choose the audit's regime for a backbone by random masks alone, on the first seed."""

    name, kind, per_seed, reads = "audit_regime", RegimeSettings, False, ()


class Masks(AuditRule):
    """Measure sub-networks that no criterion chose: the whole network, each block removed, random and nested sets."""

    name, kind = "audit_masks", MasksSettings


class ScoreAll(AuditRule):
    """Score every block by every audited criterion."""

    name, kind = "audit_scores", ScoresSettings

    def criteria(self, study: ResolvedStudy, job: Job) -> Sequence[str]:
        audited = audit_of(study).criteria_for(study.params.backbones[job.backbone])
        return [one.criterion for one in audited.values()]


class Choices(AuditRule):
    """Measure the sets of blocks that the audited criteria themselves would remove, each set once."""

    name, reads = "audit_choices", ("scores",)


class MeasureProxies(AuditRule):
    """Measure NTK and ZiCo of the sub-networks of ``audit_masks``, at several N and D, over independent draws."""

    name, kind, reads = "audit_proxies", ProxiesSettings, ("masks",)
    lower = "audit.proxies.samples, proxies.zico.batch_size"


class Schedules(AuditRule):
    """Compare the schedules at equal steps and at equal FLOPs, and the weights of the vote, in two regimes."""

    name, kind, ranks_by = "audit_schedules", SchedulesSettings, ("ced",)


class Stability(AuditRule):
    """Rank the blocks by CED again and again: other draws, other data, before and after training."""

    name, kind, ranks_by, reads = "audit_stability", StabilitySettings, ("ced",), ()

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        """The network that the start network was adapted from is ranked, too, on the data that it was trained on."""
        pretrained = folder(study.start(job.backbone, "upstream", job.seed).path, MODEL)
        return {**super().inputs(study, job), "upstream": study.store("upstream"), "pretrained": pretrained}


class Stages(AuditRule):
    """Follow the study's own pruning by the vote: its votes on other samples of the proxies, and its distance at every
    stage. It measures the networks that this arm left, and trains none."""

    name, kind, reads = "audit_stages", StagesSettings, ()

    def jobs(self, study: ResolvedStudy, backbone: str) -> Sequence[int | None]:
        return [seed for seed in audit_of(study).seeds if followed(study, backbone, seed)]

    def settings(self, study: ResolvedStudy, job: Job) -> AuditSettings:
        arm = self.arm(study, job)
        own = {"pruning": arm.pruning, "proxies": arm.proxies, "optimizer": arm.finetune.optimizer}
        return super().settings(study, job).model_copy(update=own)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        arm = self.arm(study, job)
        stages = [study.paths.stage(arm.key, stage) for stage in range(1, arm.stages + 1)]
        return {**super().inputs(study, job), "stages": stages, "final": study.paths.final(arm.key)}

    def arm(self, study: ResolvedStudy, job: Job) -> Arm:
        """Raises UserError where the study has no such arm."""
        arm = followed(study, job.backbone, job.seed)
        if arm is None:
            audit = audit_of(study)
            raise UserError(
                f"study {study.params.study} has no arm of {job.backbone} on {audit.data} with seed {job.seed} whose "
                f"{audit.schedules.ratio:.0%} are pruned by ced and vote, so there are no stages to follow"
            )
        return arm

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        """A vote among networks of which one has all blocks, or a sampling."""
        params, shape = study.params, self.network(study, job).architecture
        sampling = memory.sampling(shape, range(shape.depth), params.sampling, params.latents)
        return memory.largest([memory.proxies(shape, range(shape.depth), params.proxies), sampling])

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """At every stage, the most candidates on all draws, and a distance before and after the cut."""
        network, params = self.network(study, job), study.params
        seen, stages = network.proxied(network.depth, params.proxies), params.pruning.stages
        proxied = seen * (REDRAWS * (stages * (params.pruning.lookahead + 1) + 2))
        return proxied + self.sampled(study, job) * (2 * stages + 2)


class Outputs(AuditRule):
    """Measure how far predictions, clean images and samples are from Gaussian, and their entropies without a block."""

    name, kind, reads = "audit_outputs", OutputsSettings, ()

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        params, network = study.params, self.network(study, job)
        several = params.scoring.model_copy(update={"ld_pruner_samples": audit_of(study).samples})
        removals = network.scores("ced", params.scoring, params.sampling, network.depth, 0)
        return removals * 2 + network.scores("ld_pruner", several, params.sampling, network.depth, 0)

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        """All predictions are kept, as by CED's estimator ``low_rank``, and no more of samples."""
        params, shape = study.params, self.network(study, job).architecture
        kept = params.scoring.model_copy(update={"estimator": "low_rank"})
        return memory.largest(memory.scoring(shape, by, kept, params.sampling) for by in ("ced", "ld_pruner"))


MEASURING = (
    ChooseRegime(),
    Masks(),
    ScoreAll(),
    Choices(),
    MeasureProxies(),
    Schedules(),
    Stability(),
    Stages(),
    Outputs(),
)

# -------------------------------------------------------------------------------------------------------------- report


class ClaimedArm(Frozen):
    """An arm of the study that is of a kind that a public number of the paper is about."""

    kind: Literal["unpruned", "ld_pruner", "entpruner"]
    arm: ArmIdentity


class FollowedArm(Frozen):
    """The arm whose stages are followed, of one backbone and seed."""

    arm: ArmIdentity
    scores: str
    """The name of the scores that it prunes by."""
    stages: int


class AuditScope(Frozen):
    """What was audited."""

    study: str
    backbones: tuple[str, ...]
    unets: tuple[str, ...] = ()
    """The backbones that are U-Nets. They have no proxies, and lack the criteria that know transformers only."""
    stock: tuple[str, ...] = Field((), exclude_if=lambda names: not names)
    """The backbones that are transformers of diffusers. They have no proxies, and lack some criteria, too."""
    data: str
    seeds: tuple[int, ...]
    criteria: tuple[str, ...]
    """The names of the audited criteria, in the order of the tables."""
    samples: int
    """The number of images that a distance is measured on."""
    imported: tuple[str, ...] = ()
    """The backbones whose weights others published."""
    finetune_steps: int | None = None
    """The steps to which the study's fine-tuning is shrunk in the audit. None if it is not shrunk."""
    distance: str
    """The metric of the claimed arms: fid, or fd_<extractor>."""
    claimed: tuple[ClaimedArm, ...]
    followed: tuple[FollowedArm, ...] = ()
    """The arms that ``audit_stages`` followed."""
    weights: tuple[float, ...] = ()
    """NTK's weights in the votes that are compared."""

    @property
    def proxied(self) -> tuple[str, ...]:
        """The backbones that the proxies can measure."""
        return tuple(backbone for backbone in self.backbones if backbone not in self.unets + self.stock)


class Report(Rule):
    """Write what the audit found: sentences, tables and figures."""

    name, room = "audit_report", "audit.commands"
    beside = ("*.md", "*.csv", "*.png", "*.svg", "*/*.md")

    def settings(self, study: ResolvedStudy, job: Job) -> AuditScope:
        audit, known = audit_of(study), study.params.backbones
        return AuditScope(
            study=study.params.study,
            **audit.model_dump(include={"backbones", "data", "seeds", "samples", "finetune_steps"}),
            unets=tuple(name for name in audit.backbones if known[name].unet),
            stock=tuple(name for name in audit.backbones if known[name].diffusers),
            criteria=tuple(audit.criteria),
            imported=tuple(name for name in audit.backbones if known[name].checkpoint),
            distance=study.distance(),
            weights=audit.schedules.weights,
            followed=tuple(
                FollowedArm(arm=arm.identity, scores=arm.scores, stages=arm.stages) for arm in all_followed(study)
            ),
            claimed=tuple(
                ClaimedArm.model_validate({"kind": kind, "arm": arm.identity})
                for kind, arm in claimed(study.params, study.arms.values())
            ),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"results": Artefact(study.paths.root, {}), "reference": file(REFERENCE)}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        scope, paths = self.settings(study, job), study.paths
        found = []
        for rule in MEASURING:
            for backbone in scope.backbones if rule.knows_all else scope.proxied:
                found += [paths.audit(rule.part, backbone, seed).path for seed in rule.jobs(study, backbone)]
        for arm in all_followed(study):
            found.append(paths.scores(arm.backbone, arm.data, arm.seed, arm.scores).files["timing"])
            for stage in range(1, arm.stages + 1):
                found += [paths.stage(arm.key, stage).files[name] for name in ("decision", "timing")]
            found.append(paths.final(arm.key).files["timing"])
        arms = [study.arms[claim.arm.key] for claim in scope.claimed]
        found += [path for arm in arms for path in (paths.metrics(arm.key).path, paths.final(arm.key).files["card"])]
        return found + costs(study, arms)

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.audit_report()}


def followed(study: ResolvedStudy, backbone: str, seed: int) -> Arm | None:
    """The study's arm of EntPruner's kind at the audit's ratio of the paper, if it has one."""
    audit = audit_of(study)
    asked = (backbone, audit.data, seed, audit.schedules.ratio, "adapted")
    arms = [arm for kind, arm in claimed(study.params, study.arms.values()) if kind == "entpruner"]
    return next((a for a in arms if (a.backbone, a.data, a.seed, a.ratio, a.start) == asked), None)


def all_followed(study: ResolvedStudy) -> list[Arm]:
    audit = audit_of(study)
    proxied = [name for name in audit.backbones if study.params.backbones[name].proxied]
    found = [followed(study, backbone, seed) for backbone in proxied for seed in audit.seeds]
    return [arm for arm in found if arm is not None]


def audit_of(study: ResolvedStudy) -> Audit:
    """Raises UserError where the study has no audit."""
    if study.params.audit is None:
        raise UserError(f"study {study.params.study} has no section audit; add one, as params/digits.yaml has")
    return study.params.audit


RULES = (*MEASURING, Report())
