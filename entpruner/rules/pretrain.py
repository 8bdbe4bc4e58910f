"""Backbones: trained from nothing on the upstream data, or taken from a checkpoint, then moved to other data."""

from pathlib import Path

from entpruner.layout import MODEL, TIMING, Artefact, Layout, file, folder
from entpruner.params.backbones import Backbone
from entpruner.params.base import Frozen
from entpruner.params.training import LabelTable, Training
from entpruner.rules.rule import Given, Job, Rule, TrainingRule, TrainingSettings, Watched
from entpruner.sizes import memory
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import WORD, Work
from entpruner.study.resolved import ResolvedStudy


class BackboneTraining(TrainingRule):
    """A rule that trains a whole network as the section of the study says that has the rule's name."""

    def training(self, study: ResolvedStudy) -> Training:
        section: Training = getattr(study.params, self.name)
        return section

    def watched(self, study: ResolvedStudy, job: Job) -> Watched | None:
        """How the training is monitored, or None: the proxies do not know every network."""
        if not study.params.backbones[job.backbone].proxied:
            return None
        return Watched.of(self.training(study).monitor, study.params.proxies, study.params.pruning)

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        network, training = self.network(study, job), self.training(study)
        work, watched = network.trained(network.depth, training, training.steps), self.watched(study, job)
        return work if watched is None else work + watched.work(network, network.depth, training.steps)

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        network, watched = self.network(study, job), self.watched(study, job)
        shape, whole = network.architecture, range(network.depth)
        trained = memory.training(shape, whole, self.training(study), study.params.compute)
        return trained if watched is None else memory.largest([trained, memory.proxies(shape, whole, watched.proxies)])


class PretrainSettings(TrainingSettings):
    backbone: Backbone


class Pretrain(BackboneTraining):
    """Train a backbone from nothing on the upstream data."""

    name = "pretrain"
    made = Layout.pretrained

    def settings(self, study: ResolvedStudy, job: Job) -> PretrainSettings:
        return PretrainSettings(
            artefact=f"pretrain/{job.backbone}",
            seed=job.seed,
            backbone=study.params.backbones[job.backbone],
            training=self.training(study),
            watched=self.watched(study, job),
            stop=self.training(study).steps,
            compute=study.compute,
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"store": study.store("upstream")}


class ImportSettings(Frozen):
    backbone: Backbone
    """A backbone with a ``checkpoint``."""
    input_size: int
    """Side of what the network sees, an image or its latent."""
    in_channels: int


class ImportCheckpoint(Rule):
    """Take a backbone's weights from an official file."""

    name, copies = "import_checkpoint", 3

    def settings(self, study: ResolvedStudy, job: Job) -> ImportSettings:
        channels, size = study.params.input_shape("upstream")
        return ImportSettings(backbone=study.params.backbones[job.backbone], input_size=size, in_channels=channels)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        """A file that the user put there is no input of Snakemake's: if it is missing, the command says so."""
        checkpoint = study.params.backbones[job.backbone].checkpoint
        assert checkpoint is not None, "the rule is for backbones with a checkpoint"
        path = Path(checkpoint.file)
        return {"checkpoint": file(path) if checkpoint.url else Artefact(path, {})}

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        made = paths.pretrained("{backbone}", "{seed}").path
        return {"out": folder(made, MODEL | {"timing": TIMING})}

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        network = self.network(study, job)
        return Work(disk=WORD * network.parameters(network.depth))


class AdaptSettings(TrainingSettings):
    label_table: LabelTable = "new"


class Adapt(BackboneTraining):
    """Move a backbone to other data: new labels, then some training. All arms on that data begin here."""

    name = "adapt"
    made = Layout.adapted

    def settings(self, study: ResolvedStudy, job: Job) -> AdaptSettings:
        return AdaptSettings(
            artefact=f"adapt/{job.backbone}-{job.data}",
            seed=job.seed,
            label_table=study.params.label_table,
            training=self.training(study),
            watched=self.watched(study, job),
            stop=self.training(study).steps,
            compute=study.compute,
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        start = study.paths.pretrained(job.backbone, job.seed).path
        return {"store": study.store(job.data), "init": folder(start, MODEL)}


RULES = (Pretrain(), ImportCheckpoint(), Adapt())
