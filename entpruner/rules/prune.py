"""Pruning stages and the recovery. A stage decides how many blocks go, drops them and trains on."""

from collections.abc import Sequence

from entpruner.layout import MODEL, Artefact, Layout, file, folder
from entpruner.params.arms import Schedule
from entpruner.params.compute import Compute
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import Pruning, candidate_counts
from entpruner.params.sampling import Sampling
from entpruner.params.training import LabelTable
from entpruner.rules.rule import TRAINING_MEMORY, ArmTrainingSettings, Given, Job, TrainingRule, Watched
from entpruner.rules.score import Ranking
from entpruner.sizes import memory
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import Network, Work
from entpruner.study.arms import Arm
from entpruner.study.resolved import ResolvedStudy


class PruneSettings(ArmTrainingSettings):
    schedule: Schedule
    pruning: Pruning
    proxies: Proxies
    stages: int
    total: int
    """The number of blocks that all stages together remove."""
    rescoring: Ranking | None = None
    """How this stage scores the blocks that are left. Without it the arm's one ranking holds."""

    @classmethod
    def of(cls, arm: Arm, stage: int, artefact: str, sampling: Sampling, compute: Compute) -> "PruneSettings":
        """The settings of a stage of an arm; ``sampling`` is for a criterion that samples."""
        rescoring = None
        if arm.pruning.rerank and stage > 1 and arm.criterion is not None:
            rescoring = Ranking.of(arm.criterion, arm.scoring, sampling)
        return cls(
            artefact=artefact,
            seed=arm.seed,
            schedule=arm.schedule,
            pruning=arm.pruning,
            proxies=arm.proxies,
            training=arm.finetune,
            watched=Watched.of(arm.finetune.monitor, arm.proxies, arm.pruning, arm.at_stake),
            stage=stage,
            stages=arm.stages,
            total=arm.blocks_removed,
            rescoring=rescoring,
            start=arm.boundaries[stage - 1],
            stop=arm.boundaries[stage],
            compute=compute,
        )


class Prune(TrainingRule):
    """Do one stage of an arm: decide how many blocks go, drop them, and train on."""

    name = "prune"
    lower = f"proxies.zico.batch_size, {TRAINING_MEMORY}"
    made = Layout.stage

    def criteria(self, study: ResolvedStudy, job: Job) -> tuple[str, ...]:
        rescoring = self.settings(study, job).rescoring
        return () if rescoring is None else (rescoring.criterion,)

    def settings(self, study: ResolvedStudy, job: Job) -> PruneSettings:
        arm, artefact = study.arms[job.arm], f"arms/{job.arm}/stage{job.stage}"
        return PruneSettings.of(arm, job.stage, artefact, study.params.sampling, study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        arm = study.arms[job.arm]
        return {
            "store": study.store(arm.data),
            "init": before(study, arm, job.stage),
            "scores": ranking(study, arm),
            "teacher": teacher(study, arm),
        }

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """It is assumed that a vote goes one step on at every stage."""
        arm, network = study.arms[job.arm], self.network(study, job)
        grid = arm.grid
        steps = arm.boundaries[job.stage] - arm.boundaries[job.stage - 1]
        work = network.trained(arm.depth - grid[job.stage], arm.finetune, steps)
        if watched := self.settings(study, job).watched:
            work += watched.work(network, arm.depth - grid[job.stage], steps)
        if arm.schedule == "vote":
            work += voted(network, grid, job.stage, arm.pruning.lookahead, arm.proxies)
        if arm.pruning.rerank and job.stage > 1 and arm.criterion is not None:
            left, scored = arm.blocks_removed - grid[job.stage - 1], arm.depth - grid[job.stage - 1]
            work += network.scores(arm.criterion, arm.scoring, study.params.sampling, scored, left)
        return work

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        """A vote may keep all blocks until the last stage."""
        arm, shape = study.arms[job.arm], self.network(study, job).architecture
        whole = range(arm.depth)
        parts = [memory.training(shape, whole, arm.finetune, study.params.compute)]
        if arm.schedule == "vote" or arm.finetune.monitor is not None:
            parts.append(memory.proxies(shape, whole, arm.proxies))
        if arm.pruning.rerank and arm.criterion is not None:
            parts.append(memory.scoring(shape, arm.criterion, arm.scoring, study.params.sampling))
        return memory.largest(parts)


class RecoverSettings(ArmTrainingSettings):
    """With no stage before it, the recovery is an unpruned arm's whole training."""

    new_labels: bool = False
    """The arm begins with the pre-trained network, whose classes are others: it gets a new label table first."""
    label_table: LabelTable = "new"

    @classmethod
    def of(cls, arm: Arm, artefact: str, label_table: LabelTable, compute: Compute) -> "RecoverSettings":
        return cls(
            artefact=artefact,
            seed=arm.seed,
            training=arm.finetune,
            watched=Watched.of(arm.finetune.monitor, arm.proxies, arm.pruning, arm.at_stake),
            stage=arm.stages + 1,
            start=arm.boundaries[-2],
            stop=arm.boundaries[-1],
            new_labels=arm.start == "pretrained" and arm.data != "upstream",
            label_table=label_table,
            compute=compute,
        )


class Recover(TrainingRule):
    """Train on after the last pruning; an unpruned arm has its whole fine-tuning here, by any method."""

    name = "recover"
    made = Layout.final

    def settings(self, study: ResolvedStudy, job: Job) -> RecoverSettings:
        arm, artefact = study.arms[job.arm], f"arms/{job.arm}/final"
        return RecoverSettings.of(arm, artefact, study.params.label_table, study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        arm = study.arms[job.arm]
        return {
            "store": study.store(arm.data),
            "init": before(study, arm, arm.stages + 1),
            "scores": ranking(study, arm) if arm.schedule == "none" and arm.ranked_by else None,
            "teacher": teacher(study, arm),
        }

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        arm, network = study.arms[job.arm], self.network(study, job)
        steps = arm.boundaries[-1] - arm.boundaries[-2]
        work, watched = network.trained(arm.blocks_left, arm.finetune, steps), self.settings(study, job).watched
        return work if watched is None else work + watched.work(network, arm.blocks_left, steps)

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        arm, shape = study.arms[job.arm], self.network(study, job).architecture
        left = range(arm.blocks_left)
        trained = memory.training(shape, left, arm.finetune, study.params.compute)
        watched = arm.finetune.monitor is not None
        return memory.largest([trained, memory.proxies(shape, left, arm.proxies)]) if watched else trained


def before(study: ResolvedStudy, arm: Arm, stage: int) -> Artefact:
    """The network that a stage begins with. Training states are read where an earlier stage of the arm left one."""
    start = study.before(arm, stage)
    return folder(start.path, MODEL) if stage == 1 else start


def ranking(study: ResolvedStudy, arm: Arm) -> Artefact:
    """The file with the ranking of the arm's blocks."""
    return file(study.paths.scores(arm.backbone, arm.data, arm.seed, arm.scores).files["scores"])


def teacher(study: ResolvedStudy, arm: Arm) -> Artefact | None:
    """The network that the arm begins with, where it goes on learning from it."""
    return None if arm.finetune.distillation is None else folder(study.arm_start(arm).path, MODEL)


def voted(network: Network, grid: Sequence[int], stage: int, lookahead: int, proxies: Proxies) -> Work:
    """Both proxies of every candidate of a stage, where there is a choice."""
    counts = candidate_counts(grid, grid[stage - 1], stage, lookahead)
    candidates = [network.proxied(network.depth - count, proxies) for count in counts]
    return sum(candidates, Work()) if len(counts) > 1 else Work()


RULES = (Prune(), Recover())
