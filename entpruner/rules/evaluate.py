"""Samples of each arm, what they are worth, and what its network costs."""

from collections.abc import Sequence

from entpruner.layout import MODEL, Artefact, Layout, file, folder
from entpruner.params.backbones import Backbone
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.evaluation import Evaluation
from entpruner.params.latents import Latents
from entpruner.params.sampling import Sampling
from entpruner.rules.rule import Given, Job, Rule
from entpruner.sizes import memory, nets
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import WORD, Work
from entpruner.study.resolved import ResolvedStudy


class CutSettings(Frozen):
    compute: Compute


class Cut(Rule):
    """Take the network right after an arm's last cut, before any training on it."""

    name, copies = "cut", 3
    made = Layout.cut

    def settings(self, study: ResolvedStudy, job: Job) -> CutSettings:
        return CutSettings(compute=study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        """The networks that the arm's stages began with, and their decisions."""
        arm = study.arms[job.arm]
        stages = range(1, arm.stages + 1)
        return {
            "inits": [folder(study.before(arm, stage).path, MODEL) for stage in stages],
            "decisions": [file(study.paths.stage(arm.key, stage).files["decision"]) for stage in stages],
        }

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        arm = study.arms[job.arm]
        return Work(disk=WORD * self.network(study, job).parameters(arm.blocks_left))


class SampleSettings(Frozen):
    seed: int
    sampling: Sampling
    latents: Latents | None = None
    """What the network works on, if not pixels."""
    compute: Compute


class Sample(Rule):
    """Sample images from a trained network into a store."""

    name, shared, resumes, on_gpu, copies = "sample", True, True, True, 3
    lower = "sampling.batch_size"
    made = Layout.samples

    def settings(self, study: ResolvedStudy, job: Job) -> SampleSettings:
        arm = study.arms[job.arm]
        return SampleSettings(seed=arm.seed, sampling=arm.sampling, latents=study.params.latents, compute=study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        """A network of latents needs the autoencoder that decodes them, and the store that it was trained on."""
        network = study.paths.cut(job.arm) if job.cut else study.paths.final(job.arm)
        return {
            "init": folder(network.path, MODEL),
            "autoencoder": study.autoencoder(),
            "latents": study.store(study.arms[job.arm].data) if study.params.latents else None,
        }

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        arm, images = study.arms[job.arm], study.params.datasets[study.arms[job.arm].data]
        width = arm.finetune.adapter_width if arm.finetune.method == "adapters" else None
        one = self.network(study, job).sampled(arm.blocks_left, arm.sampling, width)
        if study.params.latents:
            one += nets.coded(study.params.latents, images.image_size, decode=True)
        return Work(sampling=one, disk=nets.image_bytes(images)) * arm.sampling.samples

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        arm, shape = study.arms[job.arm], self.network(study, job).architecture
        return memory.sampling(shape, range(arm.blocks_left), arm.sampling, study.params.latents)


class EvaluateSettings(Frozen):
    seed: int
    evaluation: Evaluation
    compute: Compute


class Evaluate(Rule):
    """Measure sampled images against the real ones."""

    name, shared, on_gpu = "evaluate", True, True
    lower = "evaluation.batch_size"

    def settings(self, study: ResolvedStudy, job: Job) -> EvaluateSettings:
        seed, evaluation = study.arms[job.arm].seed, study.params.evaluation
        return EvaluateSettings(seed=seed, evaluation=evaluation, compute=study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        data = study.arms[job.arm].data
        samples = study.paths.samples(job.arm, job.cut)
        return {
            "store": study.paths.pixels(data),
            "samples": samples._replace(files={"manifest": samples.files["manifest"]}),
            "classifier": study.classifier(data),
        }

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": paths.metrics("{arm}", "{cut}"), "timing": paths.metrics_timing("{arm}", "{cut}")}

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """Features of all real images and of the generated ones, by every feature net."""
        arm = study.arms[job.arm]
        seen = study.images[arm.data].train + arm.sampling.samples
        return Work(measuring=seen * nets.features(study.params.evaluation, study.params.datasets[arm.data]))

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        return memory.features(study.params.evaluation, study.params.datasets[study.arms[job.arm].data].image_size)

    def held(self, study: ResolvedStudy, job: Job) -> float:
        arm = study.arms[job.arm]
        return features_held(study, arm.data, arm.sampling.samples)


def features_held(study: ResolvedStudy, data: str, samples: int) -> float:
    """Bytes of the features of real and generated images, and of half of them again, in float64."""
    return 3 * 8 * nets.feature_width(study.params.evaluation) * (study.images[data].train + samples)


class CostSettings(Frozen):
    backbone: Backbone
    blocks: tuple[int, ...]
    """The numbers of blocks that arms end with; the whole network is measured anyway."""
    adapter_widths: tuple[int, ...] = ()
    """The widths of adapters that arms put into the unpruned network."""
    batch_size: int
    repeats: int
    compute: Compute


class Cost(Rule):
    """Count parameters and MACs of a backbone, and time it, at each number of blocks that the study's arms keep."""

    name, on_gpu, copies = "cost", True, 3
    lower = "evaluation.latency_batch_size"
    made = Layout.cost

    def settings(self, study: ResolvedStudy, job: Job) -> CostSettings:
        arms, evaluation = study.arms_of(job.backbone, job.data), study.params.evaluation
        widths = {arm.finetune.adapter_width for arm in arms if arm.finetune.method == "adapters"}
        return CostSettings(
            backbone=study.params.backbones[job.backbone],
            blocks=tuple(sorted({arm.blocks_left for arm in arms})),
            adapter_widths=tuple(sorted(widths)),
            batch_size=evaluation.latency_batch_size,
            repeats=evaluation.latency_repeats,
            compute=study.compute,
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"store": study.store(job.data)}

    def kept(self, study: ResolvedStudy, job: Job) -> Sequence[int]:
        """The number of blocks of each network that is timed."""
        settings, depth = self.settings(study, job), self.network(study, job).depth
        return [*sorted({depth, *settings.blocks}), *(depth for _ in settings.adapter_widths)]

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        """Passes of each network in turn, after one to warm up."""
        network, evaluation = self.network(study, job), study.params.evaluation
        passes = sum(network.forward(blocks) for blocks in self.kept(study, job))
        return Work(sampling=(evaluation.latency_repeats + 1) * evaluation.latency_batch_size * passes)

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        shape = self.network(study, job).architecture
        return memory.timing(shape, self.kept(study, job), study.params.evaluation.latency_batch_size)


RULES = (Cut(), Sample(), Evaluate(), Cost())
