"""The audit: what score and proxies are worth."""

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

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
from entpruner.params.training import Finetuning
from entpruner.rules.evaluate import features_held
from entpruner.rules.report import costs
from entpruner.rules.rule import TRAINING_MEMORY, Given, Job, Rule, Seeded
from entpruner.sizes import memory, nets
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import Network, Work
from entpruner.study.arms import ArmIdentity, claimed
from entpruner.study.resolved import ResolvedStudy


class AuditSettings(Seeded):
    """Settings that every measuring rule of the audit has. All rules of a backbone share their draws."""

    scoring: Scoring


class BenchSettings(AuditSettings):
    """Settings of the rules that recover and sample sub-networks."""

    sampling: Sampling
    finetune: Finetuning
    """It is shrunk to the regime's steps."""
    evaluation: Evaluation
    latents: Latents | None = None
    """What the networks work on, if not pixels."""


class AuditRule(Rule):
    """A rule of the audit that measures one backbone."""

    room, resumes, on_gpu, copies = "audit.commands", True, True, 7
    lower = f"scoring.batch_size, sampling.batch_size, {TRAINING_MEMORY}"
    benched: ClassVar[bool] = True
    """It recovers and samples sub-networks, and measures their distance from the real images."""
    reads: ClassVar[tuple[str, ...]] = ("regime",)
    """Parts of the audit that it reads; their names are those of the command's options."""
    per_seed: ClassVar[bool] = True
    knows_unets: ClassVar[bool] = True

    @property
    def part(self) -> str:
        return self.name.removeprefix("audit_")

    def seed(self, study: ResolvedStudy, job: Job) -> int:
        return job.seed

    def common(self, study: ResolvedStudy, job: Job) -> dict[str, Any]:
        """The settings that the rule shares with others."""
        audit, params = audit_of(study), study.params
        shared = {
            "artefact": f"audit/{job.backbone}-{audit.data}",
            "seed": self.seed(study, job),
            "scoring": params.scoring,
            "compute": study.compute,
        }
        if self.benched:
            shared |= {
                "sampling": params.sampling.model_copy(update={"samples": audit.samples}),
                "finetune": params.finetune,
                "evaluation": params.evaluation,
                "latents": params.latents,
            }
        return shared

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

    @abstractmethod
    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        """How many sub-networks are recovered and sampled, and how often blocks are ranked or proxies measured."""

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """The sub-networks are assumed to be as large as the whole, and as long recovered as in the dearest regime."""
        network, params, audit = self.network(study, job), study.params, audit_of(study)
        measured, ranked = self.counts(study, job)
        steps = max(regime.steps for regime in audit.regime.candidates)
        recovered = network.trained(network.depth, params.finetune, steps)
        one = network.sampled(network.depth, params.sampling)
        if params.latents:
            one += nets.coded(params.latents, params.datasets[audit.data].image_size, decode=True)
        seen = nets.features(params.evaluation, params.datasets[audit.data])
        sampled = Work(sampling=one, measuring=seen) * audit.samples
        ranking = network.scores("ced", params.scoring, params.sampling, network.depth, 0)
        trainings = Work(steps=steps, training=recovered.training)
        return (trainings + sampled) * measured + ranking * ranked

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        """What is done one after the other: rankings by CED, proxies, recoveries and samplings."""
        params, shape, audit = study.params, self.network(study, job).architecture, audit_of(study)
        parts = [memory.scoring(shape, "ced", params.scoring, params.sampling)]
        if not self.knows_unets:
            parts.append(memory.swept(shape, params.proxies, audit.proxies.samples))
        if self.benched or self.name == "audit_stability":
            batch_size, compute = params.finetune.batch_size, params.compute.alone
            parts.append(memory.bench(shape, batch_size, compute, params.sampling, params.latents))
        return memory.largest(parts)

    def held(self, study: ResolvedStudy, job: Job) -> float:
        audit = audit_of(study)
        return features_held(study, audit.data, audit.samples) if self.benched else 0.0


class RegimeSettings(BenchSettings):
    trials: RegimeTrials


class ChooseRegime(AuditRule):
    """Choose the audit's regime for a backbone by random masks alone, on the first seed."""

    name, per_seed, reads = "audit_regime", False, ()

    def seed(self, study: ResolvedStudy, job: Job) -> int:
        return audit_of(study).seeds[0]

    def settings(self, study: ResolvedStudy, job: Job) -> RegimeSettings:
        return RegimeSettings(**self.common(study, job), trials=audit_of(study).regime)

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        trials = audit_of(study).regime
        return len(trials.candidates) * trials.masks * trials.repeats, 0


class MasksSettings(BenchSettings):
    masks: int
    chains: int
    ratios: tuple[float, ...]
    """Depths along a chain, as shares of the blocks that are removed."""


class Masks(AuditRule):
    """Measure sub-networks that no criterion chose: the whole network, each block removed, random and nested sets."""

    name = "audit_masks"

    def settings(self, study: ResolvedStudy, job: Job) -> MasksSettings:
        """The nested sets are measured for the proxies alone, which know no U-Net."""
        audit = audit_of(study)
        chains = 0 if job.backbone in unets(study) else audit.proxies.chains
        return MasksSettings(**self.common(study, job), masks=audit.masks, chains=chains, ratios=audit.proxies.ratios)

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        settings, depth = self.settings(study, job), self.network(study, job).depth
        return 1 + depth + settings.masks + settings.chains * len(settings.ratios), 0


class ScoresSettings(AuditSettings):
    sampling: Sampling
    """The study's own, for the criteria that sample."""
    criteria: dict[str, AuditedCriterion]


class ScoreAll(AuditRule):
    """Score every block by every audited criterion."""

    name, benched = "audit_scores", False

    def criteria(self, study: ResolvedStudy, job: Job) -> set[str]:
        return {audited.criterion for audited in self.settings(study, job).criteria.values()}

    def settings(self, study: ResolvedStudy, job: Job) -> ScoresSettings:
        criteria = audit_of(study).criteria_for(study.params.backbones[job.backbone])
        return ScoresSettings(**self.common(study, job), sampling=study.params.sampling, criteria=criteria)

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        return 0, len(self.settings(study, job).criteria)


class Choices(AuditRule):
    """Measure the sets of blocks that the audited criteria themselves would remove, each set once."""

    name, reads = "audit_choices", ("scores",)

    def settings(self, study: ResolvedStudy, job: Job) -> BenchSettings:
        return BenchSettings(**self.common(study, job))

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        return len(audit_of(study).criteria), 0


class ProxiesSettings(AuditSettings):
    proxies: Proxies
    sweeps: AuditedProxies


class MeasureProxies(AuditRule):
    """Measure NTK and ZiCo of the sub-networks of ``audit_masks``, at several N and D, over independent draws."""

    name, benched, reads, knows_unets = "audit_proxies", False, ("masks",), False
    lower = "audit.proxies.samples, proxies.zico.batch_size"

    def settings(self, study: ResolvedStudy, job: Job) -> ProxiesSettings:
        return ProxiesSettings(**self.common(study, job), proxies=study.params.proxies, sweeps=audit_of(study).proxies)

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        audit = audit_of(study)
        networks = audit.masks + audit.proxies.chains * len(audit.proxies.ratios)
        return 0, networks * audit.proxies.repeats / self.network(study, job).depth


class SchedulesSettings(BenchSettings):
    pruning: Pruning
    proxies: Proxies
    paper: Regime
    """A ratio of the paper's, and the study's fine-tuning; the other regime is the audit's own."""
    weights: tuple[float, ...]
    """NTK's weights in the vote; ZiCo has the rest of 1."""


class Schedules(AuditRule):
    """Compare the schedules at equal steps and at equal FLOPs, and the weights of the vote, in two regimes."""

    name, knows_unets = "audit_schedules", False

    def criteria(self, study: ResolvedStudy, job: Job) -> tuple[str, ...]:
        return ("ced",)

    def settings(self, study: ResolvedStudy, job: Job) -> SchedulesSettings:
        audit, params = audit_of(study), study.params
        return SchedulesSettings(
            **self.common(study, job),
            pruning=params.pruning,
            proxies=params.proxies,
            paper=Regime(ratio=audit.schedules.ratio, steps=audit.steps_of(params.finetune)),
            weights=audit.schedules.weights,
        )

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        """Four schedules, three of them again at equal FLOPs, and the vote with each weight, in two regimes."""
        return 2 * (7 + len(audit_of(study).schedules.weights)), 1


class StabilitySettings(AuditSettings):
    draws: tuple[int, ...]
    repeats: int
    finetune: Finetuning
    steps: int
    """Steps of the fine-tuning after which the blocks are ranked again."""


class Stability(AuditRule):
    """Rank the blocks by CED again and again: other draws, other data, before and after training."""

    name, benched, reads = "audit_stability", False, ()

    def criteria(self, study: ResolvedStudy, job: Job) -> tuple[str, ...]:
        return ("ced",)

    def settings(self, study: ResolvedStudy, job: Job) -> StabilitySettings:
        audit, finetune = audit_of(study), study.params.finetune
        return StabilitySettings(
            **self.common(study, job),
            draws=audit.stability.draws,
            repeats=audit.stability.repeats,
            finetune=finetune,
            steps=audit.steps_of(finetune),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        """The network is ranked before it was adapted, too, on the data that it was trained on then."""
        pretrained = folder(study.start(job.backbone, "upstream", job.seed).path, MODEL)
        return {**super().inputs(study, job), "upstream": study.store("upstream"), "pretrained": pretrained}

    def counts(self, study: ResolvedStudy, job: Job) -> tuple[float, float]:
        """Every number of draws counts as the largest; the network is also ranked before and after it was trained."""
        settings = self.settings(study, job)
        most = max(settings.draws) / study.params.scoring.draws
        return 1, settings.repeats * (len(settings.draws) * max(most, 1) + 2)


# ------------------------------------------------------------------------------------------------------------- report


class ClaimedArm(Frozen):
    """An arm of the study that is of the kind that a public number of the paper is about."""

    kind: Literal["unpruned", "ld_pruner", "entpruner"]
    arm: ArmIdentity


class AuditScope(Frozen):
    """What was audited."""

    study: str
    backbones: tuple[str, ...]
    unets: tuple[str, ...] = ()
    """The backbones that are U-Nets: they have no proxies, and lack the criteria that know transformers alone."""
    data: str
    seeds: tuple[int, ...]
    criteria: tuple[str, ...]
    """The names of the audited criteria, in the order of the tables."""
    samples: int
    imported: tuple[str, ...] = ()
    """The backbones whose weights others published."""
    finetune_steps: int | None = None
    """The steps to which the study's fine-tuning is shrunk in the audit, if it is."""
    distance: str
    """The metric of the arms below: fid, or fd_<extractor>."""
    claimed: tuple[ClaimedArm, ...]
    """The arms that the paper's public numbers are about."""

    @property
    def transformers(self) -> tuple[str, ...]:
        return tuple(backbone for backbone in self.backbones if backbone not in self.unets)


class Report(Rule):
    """Write what the audit found: sentences, tables and figures."""

    name, room = "audit_report", "audit.commands"

    def settings(self, study: ResolvedStudy, job: Job) -> AuditScope:
        audit = audit_of(study)
        return AuditScope(
            study=study.params.study,
            backbones=audit.backbones,
            unets=tuple(unets(study)),
            data=audit.data,
            seeds=audit.seeds,
            criteria=tuple(audit.criteria),
            samples=audit.samples,
            imported=tuple(name for name in audit.backbones if study.params.backbones[name].checkpoint),
            finetune_steps=audit.finetune_steps,
            distance=study.distance(),
            claimed=claims_of(study),
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"results": Artefact(study.paths.root, {}), "reference": file(REFERENCE)}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        audit, paths = audit_of(study), study.paths
        found = [paths.audit("regime", backbone).path for backbone in audit.backbones]
        for rule in (Masks(), ScoreAll(), Choices(), Stability(), MeasureProxies(), Schedules()):
            known = audit.backbones if rule.knows_unets else [b for b in audit.backbones if b not in unets(study)]
            found += [paths.audit(rule.part, backbone, seed).path for backbone in known for seed in audit.seeds]
        arms = [study.arms[found.arm.key] for found in claims_of(study)]
        found += [path for arm in arms for path in (paths.metrics(arm.key).path, paths.final(arm.key).files["card"])]
        return found + costs(study, arms)

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.audit_report()}


# -------------------------------------------------------------------------------------------------------------- parts


def claims_of(study: ResolvedStudy) -> tuple[ClaimedArm, ...]:
    found = claimed(study.params, study.arms.values())
    return tuple(ClaimedArm.model_validate({"kind": kind, "arm": arm.identity}) for kind, arm in found)


def audit_of(study: ResolvedStudy) -> Audit:
    """Raises UserError where the study has no audit."""
    if study.params.audit is None:
        raise UserError(f"study {study.params.study} has no section audit; add one, as params/digits.yaml has")
    return study.params.audit


def unets(study: ResolvedStudy) -> list[str]:
    """The audited backbones that neither proxies nor votes know."""
    return [backbone for backbone in audit_of(study).backbones if study.params.backbones[backbone].unet]


RULES = (ChooseRegime(), Masks(), ScoreAll(), Choices(), MeasureProxies(), Schedules(), Stability(), Report())
