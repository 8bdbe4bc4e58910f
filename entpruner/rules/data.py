"""Files of others, data sets as stores of pixels and of latents, and each data set's own classifier."""

from collections.abc import Sequence
from pathlib import Path

from entpruner.layout import Artefact, Layout, file
from entpruner.params.base import Frozen
from entpruner.params.compute import Compute
from entpruner.params.datasets import Dataset
from entpruner.params.evaluation import ClassifierTraining
from entpruner.params.latents import KlAutoencoder, Latents, TinyAutoencoder
from entpruner.params.origins import origins
from entpruner.rules.rule import Given, Job, Rule, Seeded
from entpruner.sizes import memory, nets
from entpruner.sizes.memory import Memory
from entpruner.sizes.work import WORD, Work
from entpruner.study.resolved import ResolvedStudy


class DownloadSettings(Frozen):
    url: str
    sha256: str


class Download(Rule):
    """Download a file, and hold it against its checksum."""

    name = "download"

    def settings(self, study: ResolvedStudy, job: Job) -> DownloadSettings:
        origin = study.downloads[job.download]
        assert origin.url is not None and origin.sha256 is not None, "params demand the sha256 of whatever has a url"
        return DownloadSettings(url=origin.url, sha256=origin.sha256)

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"out": file(Path("{download}"))}


class DataSettings(Frozen):
    dataset: Dataset


class Data(Rule):
    """Prepare a data set: a source becomes a memory-mapped store."""

    name, warm, threads = "data", False, True
    made = Layout.pixels

    def settings(self, study: ResolvedStudy, job: Job) -> DataSettings:
        return DataSettings(dataset=study.params.datasets[job.data])

    def needs(self, study: ResolvedStudy, job: Job) -> Sequence[Path]:
        return [Path(origin.file) for origin in origins(study.params.datasets[job.data]) if origin.url]

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        return Work(disk=study.images[job.data].total * nets.image_bytes(study.params.datasets[job.data]))


# ------------------------------------------------------------------------------------------------------------ latents


class AutoencoderSettings(Frozen):
    latents: Latents


class AutoencoderCopy(Rule):
    """Copy the study's autoencoder, and check that it is what the study says."""

    name = "autoencoder"
    made = Layout.autoencoder

    def settings(self, study: ResolvedStudy, job: Job) -> AutoencoderSettings:
        return AutoencoderSettings(latents=latents_of(study))

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        return Work(disk=WORD * nets.AUTOENCODER_PARAMETERS[latents_of(study).kind])


class ShardSettings(Frozen):
    latents: Latents
    shard: int
    """From 0 to ``latents.shards`` - 1."""
    compute: Compute


class LatentsShard(Rule):
    """Encode a share of a data set's images; all shards write to one file, each to rows of its own."""

    name, on_gpu, lasting = "latents_shard", True, False
    lower = "latents.batch_size"

    def settings(self, study: ResolvedStudy, job: Job) -> ShardSettings:
        return ShardSettings(latents=latents_of(study), shard=job.shard, compute=study.compute)

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"store": study.paths.pixels(job.data), "autoencoder": study.paths.autoencoder()}

    def outputs(self, paths: Layout) -> dict[str, Artefact]:
        return {"parts": paths.shard("{data}", "{shard}")}

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        latents, side = latents_of(study), study.params.datasets[job.data].image_size
        seen = study.images[job.data].total * latents.views / latents.shards
        return Work(sampling=seen * nets.coded(latents, side, decode=False))

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        return memory.coding(latents_of(study), study.params.datasets[job.data].image_size)


class LatentsStore(Rule):
    """Gather the latents of a data set that the shards have encoded."""

    name = "latents"
    made = Layout.latents

    def settings(self, study: ResolvedStudy, job: Job) -> AutoencoderSettings:
        return AutoencoderSettings(latents=latents_of(study))

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        shards = [study.paths.shard(job.data, shard) for shard in range(latents_of(study).shards)]
        return {
            "store": study.paths.pixels(job.data),
            "autoencoder": study.paths.autoencoder(),
            "shards": [file(shard.files["part"]) for shard in shards],
        }

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        latents, (channels, size) = latents_of(study), study.params.input_shape(job.data)
        float16, label = 2, 8
        one = float16 * latents.views * latents.moments * channels * size**2 + label
        return Work(disk=study.images[job.data].total * one)


def latents_of(study: ResolvedStudy) -> KlAutoencoder | TinyAutoencoder:
    assert study.params.latents is not None, "jobs of latents exist where the study has a section of this name"
    return study.params.latents


# --------------------------------------------------------------------------------------------------------- classifier


class ClassifierSettings(Seeded):
    training: ClassifierTraining


class ClassifierTrained(Rule):
    """Train the small classifier of a data set, whose features are the study's own feature net."""

    name, on_gpu = "classifier", True
    lower = "evaluation.classifier.batch_size"
    made = Layout.classifier

    def settings(self, study: ResolvedStudy, job: Job) -> ClassifierSettings:
        return ClassifierSettings(
            artefact=f"classifier/{job.data}",
            seed=study.params.seeds[0],
            training=study.params.evaluation.classifier,
            compute=study.compute,
        )

    def inputs(self, study: ResolvedStudy, job: Job) -> Given:
        return {"store": study.paths.pixels(job.data)}

    def work(self, study: ResolvedStudy, job: Job) -> Work:
        training = study.params.evaluation.classifier
        seen = 3 * training.steps * training.batch_size + study.images[job.data].total
        return Work(steps=training.steps, measuring=seen * nets.classified(training, study.params.datasets[job.data]))

    def memory(self, study: ResolvedStudy, job: Job) -> Memory:
        return memory.classifying(study.params.evaluation.classifier, study.params.datasets[job.data].image_size)


RULES = (Download(), Data(), AutoencoderCopy(), LatentsShard(), LatentsStore(), ClassifierTrained())
