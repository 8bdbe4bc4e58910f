"""Recovery: the training after the last pruning, and the whole training of an unpruned arm."""

from entpruner.layout import Artefact, Layout
from entpruner.params.compute import Compute
from entpruner.params.training import LabelTable
from entpruner.rules.prune import before, teacher
from entpruner.rules.rule import TRAINING_MEMORY, ArmTrainingSettings, Given, Job, Rule
from entpruner.sizes import memory
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import Work
from entpruner.study.arms import Arm
from entpruner.study.resolved import ResolvedStudy


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
            stage=arm.stages + 1,
            start=arm.boundaries[-2],
            stop=arm.boundaries[-1],
            new_labels=arm.start == "pretrained" and arm.data != "upstream",
            label_table=label_table,
            compute=compute,
        )


class Recover(Rule):
    """Train on after the last pruning; an unpruned arm has its whole fine-tuning here, by any method."""

    name, shared, resumes, on_gpu, copies = "recover", True, True, True, 7
    lower = TRAINING_MEMORY

    def settings(self, study: ResolvedStudy, job: Job) -> RecoverSettings:
        arm, artefact = study.arms[job.arm], f"arms/{job.arm}/final"
        return RecoverSettings.of(arm, artefact, study.params.label_table, study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        arm = study.arms[job.arm]
        return {
            "store": study.store(arm.data),
            "init": before(study, arm, arm.stages + 1),
            "teacher": teacher(study, arm),
        }

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.final("{arm}")}

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        arm, network = study.arms[job.arm], self.network(study, job)
        steps = arm.boundaries[-1] - arm.boundaries[-2]
        return network.trained(arm.depth - arm.blocks_removed, arm.finetune, steps)

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        arm, shape = study.arms[job.arm], self.network(study, job).architecture
        left = range(arm.depth - arm.blocks_removed)
        return memory.training(shape, left, arm.finetune, study.params.compute)


RULES = (Recover(),)
