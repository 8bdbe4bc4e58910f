"""What each job asks a machine for: GPUs, memory and minutes, from the sizes of what it computes.

These are limits with room to spare, which a scheduler holds a job to; ``entpruner plan`` forecasts. The workflow asks
at each start, so this is arithmetic alone, and no folder of images is counted.

In results/published/digits the slowest training or sampling of an arm makes 17 GFLOP/s with one thread, and no command
takes more than 755 MB. Slower processors are given room. What concerns GPUs is estimated.
"""

from itertools import product
from typing import NamedTuple

from entpruner.errors import UserError
from entpruner.params.compute import Compute
from entpruner.rules import RULES
from entpruner.rules.audit import AuditRule
from entpruner.rules.rule import Job
from entpruner.sizes.memory import GIB, OVERHEAD
from entpruner.sizes.work import WORD, Speed
from entpruner.study.resolved import ResolvedStudy

ROOM = 2
"""Times that a limit is above the estimate."""
START, DAY = 15, 1440
"""Minutes that every job gets, and the most that one gets. A rule that resumes goes on after its limit. A job of
another rule must be made smaller, as ``latents.shards`` does for the encoding."""
CPU = Speed(training=7e9, sampling=7e9, measuring=7e9)
"""One thread."""
GPU = Speed(training=1e14, sampling=5e13, measuring=5e12)
"""About a third of an A100's bfloat16, TF32 and float32."""
DECODED = 100
"""Images that a thread reads, resizes and stores in a second."""
LIBRARIES = {"cpu": 2000, "cuda": 5000}
"""MB of a process before it computes."""


class Needs(NamedTuple):
    """What a job asks for, by the names of Snakemake and its executor for SLURM; what is None is not asked for."""

    threads: int
    mem_mb: int
    """Memory of a node."""
    runtime: int
    """Minutes."""
    gpu: int
    """GPUs of the one node."""
    gres: str | None = None
    """The GPUs of each of several nodes. Of their total SLURM would give 7 to one and 1 to another."""
    nodes: int | None = None
    tasks: int | None = None
    """One a node: the command starts the others itself."""
    tasks_per_gpu: int | None = None
    """0, so that tasks are not counted by GPUs."""
    mpi: str | None = None
    """The program by which the command starts its tasks."""


def needs(study: ResolvedStudy, job: Job) -> Needs:
    rule = RULES[job.rule]
    compute = study.params.compute if rule.shared else study.params.compute.alone
    on_gpu = compute.device != "cpu" and rule.on_gpu
    here = Needs(
        threads=compute.threads * compute.gpus,
        mem_mb=host_mb(study, job, compute, on_gpu),
        runtime=minutes(study, job, compute, on_gpu),
        gpu=compute.gpus if on_gpu else 0,
    )
    if compute.nodes == 1:
        return here
    gres = f"gpu:{compute.gpus}" if on_gpu else None
    return here._replace(gpu=0, gres=gres, nodes=compute.nodes, tasks=compute.nodes, tasks_per_gpu=0, mpi="srun")


def minutes(study: ResolvedStudy, job: Job, compute: Compute, on_gpu: bool) -> int:
    seconds = (GPU if on_gpu else CPU).seconds(RULES[job.rule].work(study, job), compute.processes)
    if not on_gpu:
        seconds /= compute.threads
    if job.rule in ("data", "latents"):
        threads = compute.threads if job.rule == "data" else 1
        seconds += study.images[job.data].total / (DECODED * threads)
    return min(START + round(ROOM * seconds / 60), DAY)


def host_mb(study: ResolvedStudy, job: Job, compute: Compute, on_gpu: bool) -> int:
    """Memory of a node: every process holds its libraries, its network while that is read, and without a GPU what a GPU
    would hold; the first process holds features besides."""
    rule = RULES[job.rule]
    each = 0.0
    if rule.copies:
        network = rule.network(study, job)
        each += rule.copies * WORD * network.parameters(network.depth)
    needed = rule.memory(study, job)
    if needed is not None and not on_gpu:
        each += needed.total - OVERHEAD
    libraries = LIBRARIES["cuda" if on_gpu else "cpu"]
    return round(compute.gpus * (libraries + each / 1e6) + rule.held(study, job) / 1e6)


def require_room(study: ResolvedStudy) -> None:
    """Raise UserError for the first rule that needs more of a GPU than ``compute.gpu_memory``, if the study says that.

    Without this key nothing is refused: no GPU has tested the estimates.
    """
    compute = study.params.compute
    if compute.gpu_memory is None or compute.device == "cpu":
        return
    for job in largest_jobs(study):
        needed = RULES[job.rule].memory(study, job)
        what = " ".join(filter(None, (job.rule, job.scores, job.arm or job.backbone, job.data)))
        gpu = "a GPU of compute.gpu_memory"
        if needed and (said := needed.shortage(what, compute.gpu_memory * GIB, gpu)):
            raise UserError(said)


def largest_jobs(study: ResolvedStudy) -> list[Job]:
    """The hungriest job of each rule and each arm, backbone or data set; a seed or a later stage needs no more."""
    params, data = study.params, [name for name in study.params.datasets if name != "upstream"]
    jobs = [Job("classifier", data=name) for name in params.datasets if study.classifier(name)]
    if params.latents:
        jobs += [Job("latents_shard", data=name) for name in params.datasets]
    jobs += [Job("pretrain", backbone=name) for name, net in params.backbones.items() if net.checkpoint is None]
    jobs += [Job("adapt", backbone=name, data=on) for name, on in product(params.backbones, data)]
    for arm in study.arms.values():
        if arm.stages:
            jobs += [Job("score", backbone=arm.backbone, data=arm.data, seed=arm.seed, scores=arm.scores)]
            jobs += [Job("prune", arm=arm.key, stage=1)]
        jobs += [Job(rule, arm=arm.key) for rule in ("recover", "sample", "evaluate")]
        jobs += [Job("cost", backbone=arm.backbone, data=arm.data)]
    if params.audit:
        audits = [rule for rule in RULES.values() if isinstance(rule, AuditRule)]
        jobs += [
            Job(rule.name, backbone=backbone)
            for rule, backbone in product(audits, params.audit.backbones)
            if rule.knows_all or params.backbones[backbone].proxied
        ]
    return jobs
