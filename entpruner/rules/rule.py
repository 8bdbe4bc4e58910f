"""What a rule is, and the settings that several rules share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from inspect import signature
from pathlib import Path
from typing import ClassVar

from entpruner.layout import Artefact, Layout
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.criteria import module_of
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import Pruning, removal_grid
from entpruner.params.training import Finetuning, Monitor, Training
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import Network, Work
from entpruner.study.resolved import ResolvedStudy
from entpruner.system.provenance import code_digest

TRAINING_MEMORY = "compute.micro_batch (or set compute.gradient_checkpointing, or more compute.gpus)"


class Seeded(Frozen):
    """Settings of a rule that draws random numbers."""

    artefact: str
    """The name of the stream of random numbers, together with ``seed``."""
    seed: int
    compute: Compute


WATCHING = "entpruner.commands.watching"
"""The module that reads a monitored network. It alone needs the proxies, so only the trainings that are monitored count
it as a part of their code."""


class Watched(Frozen):
    """What a monitored training reads."""

    every: int
    proxies: Proxies
    pruning: Pruning
    total: int = 0
    """The number of blocks that votes are about."""

    @classmethod
    def of(cls, monitor: Monitor | None, proxies: Proxies, pruning: Pruning, total: int = 0) -> "Watched | None":
        if monitor is None:
            return None
        return cls(every=monitor.every, proxies=proxies, pruning=pruning, total=total)

    def work(self, network: Network, blocks: int, steps: int) -> Work:
        """The readings in so many steps of a network of so many blocks."""
        grid = removal_grid(self.total, self.pruning.stages)
        counts = sorted({count for count in grid if count < blocks})[: self.pruning.lookahead + 1]
        reading = sum((network.proxied(blocks - count, self.proxies) for count in counts), Work())
        return reading * (steps // self.every + 2)


class TrainingSettings(Seeded):
    """Settings that every rule has that trains a network over a stretch of ``training.steps``."""

    training: Training
    watched: Watched | None = None
    """What is read of the network, if the training is monitored."""
    stage: int = 0
    """The number of an arm's stage, from 1, with the recovery as the last; 0 for what comes before the arms."""
    start: int = 0
    """The first step of the stretch."""
    stop: int
    """The step at which the stretch ends."""

    @property
    def modules(self) -> list[str]:
        """The modules that the training runs beside those that its command imports."""
        return [WATCHING] if self.watched else []


class ArmTrainingSettings(TrainingSettings):
    """Settings of the rules that train an arm, which has a method of fine-tuning and may have a teacher."""

    training: Finetuning


@dataclass(frozen=True)
class Job:
    """One run of a rule: a value for each wildcard of Snakemake's that its rule has."""

    rule: str
    download: str = ""
    data: str = ""
    shard: int = 0
    backbone: str = ""
    seed: int = 0
    scores: str = ""
    arm: str = ""
    stage: int = 0
    cut: str = ""
    table: str = ""
    figure: str = ""
    effects: str = ""

    @classmethod
    def of(cls, rule: str, wildcards: Mapping[str, str]) -> "Job":
        numbers = {"shard", "seed", "stage"}
        known = {field.name for field in fields(cls)}
        return cls(rule, **{k: int(v) if k in numbers else v for k, v in wildcards.items() if k in known})  # type: ignore[arg-type]


Given = Mapping[str, Artefact | Sequence[Artefact] | None]
"""By the name of the option that a command takes it by: an artefact, several, or none where it is not needed."""


class Rule(ABC):
    """The record of a rule. ``settings`` and what else depends on the job is asked of a study and a job."""

    name: ClassVar[str]
    made: ClassVar[Callable[..., Artefact]]
    """The method of ``Layout`` that places what the command makes. Its arguments are named as Snakemake's wildcards."""
    lasting: ClassVar[bool] = True
    """Whether what the command makes stays. Snakemake deletes the rest when it is no longer needed (``temp``)."""
    beside: ClassVar[Sequence[str]] = ()
    """Patterns of further files that the command writes beside what it makes."""
    room: ClassVar[str] = "commands"
    """The package of the command's module, which has the rule's name."""
    shared: ClassVar[bool] = False
    """Several processes can do it together.

    ``score`` is not shared: to end with the same bits, each criterion would hand over what it sums, batch by batch, for
    minutes a job; and the scores of a study are jobs that can run side by side.
    """
    resumes: ClassVar[bool] = False
    """A killed job goes on from where it was when the rule is run again."""
    on_gpu: ClassVar[bool] = False
    """It computes on a GPU where the study says so."""
    lower: ClassVar[str] = "the numbers of images at once"
    """The keys of a study to lower where a GPU has too little memory."""
    warm: ClassVar[bool] = True
    """The warm process runs it. It does not run commands that run once a study and whose libraries start threads."""
    threads: ClassVar[bool] = False
    """The command takes a number of threads as an option."""

    def __init__(self) -> None:
        self.outputs(Layout("study"))  # so that a record without ``made`` fails when it is made

    @property
    def module(self) -> str:
        return f"entpruner.{self.room}.{self.name}"

    def criteria(self, study: ResolvedStudy, job: Job) -> Iterable[str]:
        """The criteria by which a job scores blocks: their code is part of what it runs."""
        return ()

    def code(self, study: ResolvedStudy, job: Job) -> str:
        """Digest of the code that a job runs."""
        return code_digest(self.module, *map(module_of, self.criteria(study, job)), *self.modules(study, job))

    def modules(self, study: ResolvedStudy, job: Job) -> Sequence[str]:
        """Further modules that a job runs."""
        return ()

    @abstractmethod
    def settings(self, study: ResolvedStudy, job: Job) -> Frozen:
        """What the command is told, beside paths."""

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        """What the command is given, by the name of its option."""
        return {}

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        """Further files that must be there, which the command finds by itself."""
        return ()

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        """What the command makes, by the name of its option, with Snakemake's wildcards in the paths."""
        made = type(self).made
        _, *wildcards = signature(made).parameters
        return {"out": made(paths, *(f"{{{name}}}" for name in wildcards))}

    def network(self, study: ResolvedStudy, job: Job) -> Network:
        """The shape of the network that a job reads or makes, before anything was pruned."""
        if job.arm:
            arm = study.arms[job.arm]
            return study.network(arm.backbone, arm.data)
        return study.network(job.backbone, job.data or "upstream")

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """What a job computes and leaves behind."""
        return Work()

    def memory(self, study: ResolvedStudy, job: Job) -> Memory | None:
        """What a job is estimated to need of a GPU's memory; None where it needs none."""
        return None

    copies: ClassVar[int] = 0
    """How often a job holds the weights of its network in the CPU's memory, at most."""

    def held(self, study: ResolvedStudy, job: Job) -> float:
        """Bytes of the CPU's memory that the first of several processes holds besides."""
        return 0.0

    # ---------------------------------------------------------------------------------------- the same for Snakemake

    def files_in(self, study: ResolvedStudy, job: Job) -> dict[str, list[str]]:
        """The files that must be there before a job begins: by the option of the command, and further ones."""
        files = {
            option: [str(path) for artefact in several(given) for path in artefact.files.values()]
            for option, given in self.inputs(study, job).items()
        }
        files["needs"] = list(map(str, self.needs(study, job)))
        return {option: paths for option, paths in files.items() if paths}

    def files_out(self, paths: Layout) -> dict[str, str]:
        """The files that a job makes, by name, with Snakemake's wildcards in them."""
        return {
            option if name == "file" else name: str(path)
            for option, artefact in self.outputs(paths).items()
            for name, path in artefact.files.items()
        }

    def options(self, study: ResolvedStudy, job: Job) -> dict[str, list[str]]:
        """The options of the command that are paths; one that is not needed is left out."""
        given = {
            option: [str(artefact.path) for artefact in several(artefacts)]
            for option, artefacts in self.inputs(study, job).items()
        }
        made = self.outputs(study.paths).items()
        given |= {option: [str(artefact.path).format_map(vars(job))] for option, artefact in made}
        return {option: paths for option, paths in given.items() if paths}


class TrainingRule(Rule):
    """A rule that trains a network: several processes can share it, and a killed job goes on."""

    shared, resumes, on_gpu, copies = True, True, True, 7
    lower = TRAINING_MEMORY

    def modules(self, study: ResolvedStudy, job: Job) -> Sequence[str]:
        settings = self.settings(study, job)
        assert isinstance(settings, TrainingSettings)
        return settings.modules


def several(given: Artefact | Sequence[Artefact] | None) -> Sequence[Artefact]:
    """The artefacts of an input, whether it is one, several or none."""
    if given is None:
        return ()
    return [given] if isinstance(given, Artefact) else given
