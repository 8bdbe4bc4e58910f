"""What each rule asks a machine for: GPUs, memory and minutes, from the sizes of what its job computes.

They are limits with room to spare, which a scheduler holds a job to; ``entpruner plan`` forecasts. Arithmetic alone, as
the workflow asks at each start; so how many images a folder holds is not looked up but assumed, ``ASSUMED``.

Measured, on the digits study's processors (results/published/digits): 7.4 GFLOP/s by the slowest of its commands with
one thread, and at most 635 MB. What is of GPUs is estimated.
"""

from collections.abc import Mapping
from typing import NamedTuple

from entpruner.errors import UserError
from entpruner.params.compute import Compute
from entpruner.params.datasets import Dataset, ImageFolder
from entpruner.params.study import Study
from entpruner.planning.audit import audited
from entpruner.planning.images import Images, images_of
from entpruner.planning.jobs import Job, audit_jobs, jobs_of
from entpruner.planning.memory import (
    GIB,
    OVERHEAD,
    WORD,
    Memory,
    Shape,
    bench,
    classifying,
    coding,
    features,
    largest,
    proxies,
    sampling,
    scoring,
    swept,
    timing,
    training,
)
from entpruner.planning.networks import Network, Speed
from entpruner.planning.work import Planned
from entpruner.study.arms import Arm, expand, overridden
from entpruner.system.launch import SHARED

ASSUMED = Images(train=50_000, test=10_000, classes=1000)
ON_GPU = (
    *SHARED, "latents_shard", "classifier", "score", "cost", "audit_regime", "audit_masks", "audit_scores",
    "audit_choices", "audit_proxies", "audit_schedules", "audit_stability",
)  # fmt: skip
BENCHED = ("audit_regime", "audit_masks", "audit_choices", "audit_schedules")
"""Those that sample from sub-networks and measure the distance."""

ROOM = 2  # times the estimate
START, DAY = 15, 1440  # minutes; what takes longer goes on after its limit
CPU = Speed(training=7e9, sampling=7e9, scoring=7e9, proxies=7e9, features=7e9, fits=7e9)
"""Of a thread."""
GPU = Speed(training=1e14, sampling=5e13, scoring=5e12, proxies=5e12, features=5e12, fits=7e9)
"""About a third of an A100's bfloat16, TF32 and float32, and a thread of a processor."""
DECODED = 100  # images a second and thread, that are read, resized and stored
LIBRARIES = {"cpu": 2000, "cuda": 5000}
"""MB of a process before it computes."""
COPIES = 7  # of all weights in the CPU's memory, while a training state is read
READ = ("import_checkpoint", "score", "sample", "cost")
"""Rules that read weights alone: 3 copies. Two, the file's and the network's, were measured at DiT-XL/2's size."""


class Needs(NamedTuple):
    """By their names in Snakemake and its executor for SLURM; what is None is not asked for."""

    threads: int
    mem_mb: int
    """Of a node."""
    runtime: int
    """Minutes."""
    gpu: int
    """Of the one node."""
    gres: str | None = None
    """Instead, the GPUs of each of several nodes: SLURM would share their total unevenly, as 7 and 1 of 8."""
    nodes: int | None = None
    tasks: int | None = None
    """One a node: the command starts the others itself."""
    tasks_per_gpu: int | None = None
    """0: not one a GPU."""
    mpi: str | None = None
    """The command starts its tasks by this."""


def needs(study: Study, arms: Mapping[str, Arm], job: Job) -> Needs:
    """Of one job of a study, whose arms are given by key."""
    planned = Planned(study, arms, {name: assumed(dataset) for name, dataset in study.datasets.items()})
    compute = study.compute if job.rule in SHARED else study.compute.alone
    on_gpu = compute.device != "cpu" and job.rule in ON_GPU
    here = Needs(
        threads=compute.threads * compute.gpus,
        mem_mb=host_mb(planned, job, compute, on_gpu),
        runtime=minutes(planned, job, compute, on_gpu),
        gpu=compute.gpus if on_gpu else 0,
    )
    if compute.nodes == 1:
        return here
    gres = f"gpu:{compute.gpus}" if on_gpu else None
    return here._replace(gpu=0, gres=gres, nodes=compute.nodes, tasks=compute.nodes, tasks_per_gpu=0, mpi="srun")


def assumed(dataset: Dataset) -> Images:
    """What is known of a data set without looking at a disk."""
    return ASSUMED if isinstance(dataset, ImageFolder) else images_of(dataset)


def require_room(study: Study) -> None:
    """Raise UserError for the first job that needs more of a GPU than ``compute.gpu_memory``, where that is said."""
    if study.compute.gpu_memory is None or study.compute.device == "cpu":
        return
    planned = Planned(study, expand(study), {name: assumed(dataset) for name, dataset in study.datasets.items()})
    for job in [*jobs_of(study), *audit_jobs(study)]:
        needed = memory(planned, job)
        what = " ".join(filter(None, (job.rule, job.name, job.arm or job.backbone, job.data)))
        gpu = "a GPU of compute.gpu_memory"
        if needed and (said := needed.shortage(what, study.compute.gpu_memory * GIB, gpu)):
            raise UserError(said)


def minutes(planned: Planned, job: Job, compute: Compute, on_gpu: bool) -> int:
    seconds = (GPU if on_gpu else CPU).seconds(audited(planned, job), compute.processes)
    if not on_gpu:
        seconds /= compute.threads
    if job.rule in ("data", "latents"):
        threads = compute.threads if job.rule == "data" else 1
        seconds += planned.images[job.data].total / (DECODED * threads)
    return min(START + round(ROOM * seconds / 60), DAY)


def host_mb(planned: Planned, job: Job, compute: Compute, on_gpu: bool) -> int:
    """Of every process on a node its libraries and its network while that is read, and without a GPU what a GPU would
    hold; features, which the first gathers, once."""
    network = network_of(planned, job)
    copies = 3 if job.rule in READ else COPIES
    each = 0.0 if network is None else copies * WORD * network.parameters(network.depth)
    needed = memory(planned, job)
    if needed is not None and not on_gpu:
        each += needed.total - OVERHEAD
    once = 0.0
    if job.rule == "evaluate":
        once += features_held(planned, planned.arms[job.arm].data, planned.arms[job.arm].sampling.samples)
    if (audit := planned.study.audit) and job.rule in BENCHED:
        once += features_held(planned, audit.data, audit.samples)
    return round(compute.gpus * (LIBRARIES["cuda" if on_gpu else "cpu"] + each / 1e6) + once / 1e6)


def features_held(planned: Planned, data: str, samples: int) -> float:
    """Bytes of real and generated images' features, and half of them again, in float64."""
    width = max(map(planned.width, planned.study.evaluation.extractors.values()))
    return 3 * 8 * width * (planned.images[data].train + samples)


def network_of(planned: Planned, job: Job) -> Network | None:
    """The backbone that a job reads or makes."""
    if job.arm:
        return None if job.rule == "evaluate" else planned.of(planned.arms[job.arm])
    if not job.backbone:
        return None
    audit = planned.study.audit
    data = audit.data if audit and job.rule.startswith("audit_") else job.data
    return planned.network(job.backbone, data or "upstream")


def memory(planned: Planned, job: Job) -> Memory | None:
    """What a job needs of each GPU; None where it needs none."""
    network, study = network_of(planned, job), planned.study
    if job.rule == "evaluate":
        return features(study.evaluation, study.datasets[planned.arms[job.arm].data].image_size)
    if job.rule == "classifier":
        return classifying(study.evaluation.classifier, study.datasets[job.data].image_size)
    if job.rule == "latents_shard" and study.latents:
        return coding(study.latents, study.datasets[job.data].image_size)
    if network is None or job.rule not in ON_GPU:
        return None
    shape, whole = network.architecture, range(network.depth)
    if job.rule.startswith("audit_"):
        return largest(audit_memory(study, job, shape))
    if job.rule in ("pretrain", "adapt"):
        return training(shape, whole, getattr(study, job.rule), study.compute)
    if job.rule == "score":
        criterion, settings, _ = planned.scoring(job)
        return scoring(shape, criterion, settings, study.sampling)
    if job.rule == "cost":
        return timing(shape, [blocks for blocks, _ in planned.timed_networks(job)], study.evaluation.latency_batch_size)
    arm = planned.arms[job.arm]
    left = range(arm.depth - arm.blocks_removed)
    if job.rule == "sample":
        return sampling(shape, left, arm.sampling, study.latents)
    if job.rule == "recover":
        return training(shape, left, arm.finetune, study.compute)
    parts = [training(shape, whole, arm.finetune, study.compute)]  # a vote may keep all until the last stage
    if arm.schedule == "vote":
        parts.append(proxies(shape, whole, arm.proxies))
    if arm.pruning.rerank and arm.criterion is not None:
        parts.append(scoring(shape, arm.criterion, arm.scoring, study.sampling))
    return largest(parts)


def audit_memory(study: Study, job: Job, shape: Shape) -> list[Memory]:
    """What a job of the audit does one after the other with a backbone of this shape."""
    assert study.audit is not None, "there are no such jobs without an audit"
    batch_size, compute = study.finetune.batch_size, study.compute.alone
    sampled = bench(shape, batch_size, compute, study.sampling, study.latents)
    ced = scoring(shape, "ced", study.scoring, study.sampling)
    match job.rule:
        case "audit_scores":
            criteria = study.audit.criteria_for(study.backbones[job.backbone]).values()
            settings = [(audited.criterion, overridden(study.scoring, audited.scoring)) for audited in criteria]
            return [scoring(shape, criterion, own, study.sampling) for criterion, own in settings]
        case "audit_proxies":
            return [swept(shape, study.proxies, study.audit.proxies.samples)]
        case "audit_schedules":
            return [sampled, ced, proxies(shape, range(shape.depth), study.proxies)]
        case "audit_stability":
            return [bench(shape, batch_size, compute), ced]
        case _:
            return [sampled, ced]
