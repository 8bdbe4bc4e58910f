"""What each job of a study computes and leaves behind, whatever it runs on: steps, FLOPs and bytes.

FLOPs are those of matrix products, twice the multiply-accumulates of ``models/arithmetic.py``. Not counted: reading and
resizing images, entropies and nearest neighbours, tables, figures, starting a process.

What only the run itself knows is assumed: a vote goes one step on at every stage; the audit tries every candidate
regime and takes the dearest, and its criteria all choose different blocks; ``networks.py`` says how often dopri5 asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from entpruner.errors import UserError
from entpruner.params.arms import Criterion
from entpruner.params.evaluation import ClassifierExtractor, Extractor, InceptionExtractor, TorchvisionExtractor
from entpruner.params.latents import KlAutoencoder, TinyAutoencoder
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import candidate_counts, removal_grid
from entpruner.params.scoring import Scoring
from entpruner.params.study import Study
from entpruner.params.training import Finetuning, Training
from entpruner.planning import fits
from entpruner.planning.images import Images
from entpruner.planning.jobs import Job
from entpruner.planning.memory import WORD, autoencoder_weights
from entpruner.planning.networks import Network, Work
from entpruner.study.arms import Arm

INCEPTION_MACS = 5.7e9  # of InceptionV3 at its 299 pixels
INCEPTION_WIDTH = 2048  # its features
AUTOENCODERS = {"kl": (136.4e9, 311.1e9), "tiny": (15.3e9, 17.7e9)}
"""MACs to encode and to decode 256 x 256 pixels, of Stable Diffusion's and of TAESD."""


@dataclass(frozen=True)
class Planned:
    """A study, its arms by key, and what is known of its images by data set."""

    study: Study
    arms: Mapping[str, Arm]
    images: Mapping[str, Images]

    def work(self, job: Job) -> Work:
        """Raises KeyError for a rule that it doesn't know."""
        works: dict[str, Callable[[Job], Work]] = {
            "download": self.nothing,
            "data": self.stored,
            "autoencoder": self.fetched,
            "latents_shard": self.encoded,
            "latents": self.gathered,
            "classifier": self.classifier,
            "pretrain": self.pretrained,
            "import_checkpoint": self.imported,
            "adapt": self.adapted,
            "score": self.scored,
            "prune": self.staged,
            "recover": self.recovered,
            "cut": self.cut,
            "sample": self.sampled,
            "evaluate": self.evaluated,
            "cost": self.timed,
            "table": self.nothing,
            "figure": self.nothing,
            "track": self.nothing,
        }
        return works[job.rule](job)

    # ------------------------------------------------------------------------------------------------ data, networks

    def network(self, backbone: str, data: str) -> Network:
        shape, (channels, size) = self.study.backbones[backbone], self.study.input_shape(data)
        classes = max(self.images[data].classes, 1)  # not known before the data is there
        architecture = shape.architecture(size, channels, classes)
        return Network(architecture, shape.process, shape.blocks)

    def of(self, arm: Arm) -> Network:
        return self.network(arm.backbone, arm.data)

    def image_bytes(self, data: str) -> int:
        """With its label."""
        images = self.study.datasets[data]
        return images.channels * images.image_size**2 + 8

    def stored(self, job: Job) -> Work:
        return Work(disk=self.images[job.data].total * self.image_bytes(job.data))

    @property
    def latents(self) -> KlAutoencoder | TinyAutoencoder:
        assert self.study.latents is not None, "there are jobs of latents where the study has a section of this name"
        return self.study.latents

    def fetched(self, _: Job) -> Work:
        return Work(disk=autoencoder_weights(self.latents))

    def encoded(self, job: Job) -> Work:
        """A shard: images, and their mirror images."""
        images = self.images[job.data].total * self.latents.views / self.latents.shards
        return Work(sampling=images * self.coded(job.data, decode=False))

    def gathered(self, job: Job) -> Work:
        channels, size = self.study.input_shape(job.data)
        one = 2 * self.latents.views * self.latents.moments * channels * size**2  # float16
        return Work(disk=self.images[job.data].total * (one + 8))

    def decoded(self, data: str) -> float:
        """FLOPs that make an image of what a network samples: none of pixels."""
        return self.coded(data, decode=True) if self.study.latents else 0.0

    def coded(self, data: str, *, decode: bool) -> float:
        """FLOPs of one image through the autoencoder."""
        return 2 * AUTOENCODERS[self.latents.kind][decode] * (self.study.datasets[data].image_size / 256) ** 2

    def classifier(self, job: Job) -> Work:
        training = self.study.evaluation.classifier
        one = self.net(ClassifierExtractor(kind="classifier"), job.data)
        seen = 3 * training.steps * training.batch_size + self.images[job.data].total
        return Work(steps=training.steps, features=seen * one)

    # ------------------------------------------------------------------------------------------------------- training

    def trained(self, network: Network, blocks: int, training: Training, steps: int) -> Work:
        """Steps with so many blocks, and the folder they leave: weights, their average, and AdamW's two moments."""
        tuning = training if isinstance(training, Finetuning) else None
        flops = steps * training.batch_size * network.step(blocks, tuning)
        copies = 4 if tuning is None or tuning.method == "full" else 2  # else the moments are those of little
        return Work(steps=steps, training=flops, disk=copies * WORD * network.parameters(blocks))

    def pretrained(self, job: Job) -> Work:
        network = self.network(job.backbone, "upstream")
        return self.trained(network, network.depth, self.study.pretrain, self.study.pretrain.steps)

    def imported(self, job: Job) -> Work:
        network = self.network(job.backbone, "upstream")
        return Work(disk=WORD * network.parameters(network.depth))

    def adapted(self, job: Job) -> Work:
        network = self.network(job.backbone, job.data)
        return self.trained(network, network.depth, self.study.adapt, self.study.adapt.steps)

    def staged(self, job: Job) -> Work:
        arm = self.arms[job.arm]
        network, grid = self.of(arm), removal_grid(arm.blocks_removed, arm.stages)
        before, after = arm.depth - grid[job.stage - 1], arm.depth - grid[job.stage]
        steps = arm.boundaries[job.stage] - arm.boundaries[job.stage - 1]
        work = self.trained(network, after, arm.finetune, steps)
        if arm.schedule == "vote":
            work += voted(network, grid, job.stage, arm.pruning.lookahead, arm.proxies)
        if arm.pruning.rerank and job.stage > 1 and arm.criterion is not None:
            left = arm.blocks_removed - grid[job.stage - 1]
            work += network.scores(arm.criterion, arm.scoring, self.study.sampling, before, left)
        return work

    def recovered(self, job: Job) -> Work:
        arm = self.arms[job.arm]
        steps = arm.boundaries[-1] - arm.boundaries[-2]
        return self.trained(self.of(arm), arm.depth - arm.blocks_removed, arm.finetune, steps)

    def cut(self, job: Job) -> Work:
        arm = self.arms[job.arm]
        return Work(disk=WORD * self.of(arm).parameters(arm.depth - arm.blocks_removed))

    def scored(self, job: Job) -> Work:
        network = self.network(job.backbone, job.data)
        criterion, scoring, remove = self.scoring(job)
        return network.scores(criterion, scoring, self.study.sampling, network.depth, remove)

    def scoring(self, job: Job) -> tuple[Criterion, Scoring, int]:
        """Of a job of the rule score: criterion, settings, and the blocks that an arm removes; 0 for a figure's."""
        for arm in self.arms.values():
            if (arm.backbone, arm.data, arm.seed, arm.scores) == (job.backbone, job.data, job.seed, job.name):
                assert arm.criterion is not None, "only pruned arms are named by scores"
                return arm.criterion, arm.scoring, arm.blocks_removed
        criterion: Any = job.name
        return criterion, self.study.scoring, 0

    # ----------------------------------------------------------------------------------------------------- evaluation

    def sampled(self, job: Job) -> Work:
        arm = self.arms[job.arm]
        width = arm.finetune.adapter_width if arm.finetune.method == "adapters" else None
        one = self.of(arm).sampled(arm.depth - arm.blocks_removed, arm.sampling, width)
        n = arm.sampling.samples
        return Work(sampling=n * (one + self.decoded(arm.data)), disk=n * self.image_bytes(arm.data))

    def evaluated(self, job: Job) -> Work:
        """Features of all real images and of the generated ones, by every feature net; and the metrics on them."""
        arm, settings = self.arms[job.arm], self.study.evaluation
        real, generated = self.images[arm.data].train, arm.sampling.samples
        nets = settings.extractors.values()
        return Work(
            features=(real + generated) * sum(self.net(net, arm.data) for net in nets),
            fits=sum(fits.evaluation(real, generated, self.width(net), settings) for net in nets),
        )

    def net(self, extractor: Extractor, data: str) -> float:
        """FLOPs of one image through a feature net."""
        if isinstance(extractor, InceptionExtractor):
            return 2 * INCEPTION_MACS
        images = self.study.datasets[data]
        if isinstance(extractor, ClassifierExtractor):
            width, features = self.study.evaluation.classifier.width, self.study.evaluation.classifier.features
            convolutions = 9 * width * images.channels + (18 * width**2 + 36 * width**2) / 4
            return 2 * (images.image_size**2 * convolutions + 2 * width * 16 * features)
        return 2 * torchvision_macs(extractor.model)

    def width(self, extractor: Extractor) -> int:
        """How many features a feature net has."""
        if isinstance(extractor, TorchvisionExtractor):
            return torchvision_width(extractor.model)
        return (
            INCEPTION_WIDTH if isinstance(extractor, InceptionExtractor) else self.study.evaluation.classifier.features
        )

    def nothing(self, _: Job) -> Work:
        """Of files whose size is not known, and of tables and the like, whose numbers are there."""
        return Work()

    def timed(self, job: Job) -> Work:
        """Latency, with a warm-up, of each network that arms end with."""
        network, evaluation = self.network(job.backbone, job.data), self.study.evaluation
        passes = [network.forward(blocks, width) for blocks, width in self.timed_networks(job)]
        return Work(sampling=(evaluation.latency_repeats + 1) * evaluation.latency_batch_size * sum(passes))

    def timed_networks(self, job: Job) -> list[tuple[int, int | None]]:
        """Blocks of each, and the width of its adapters."""
        arms = [arm for arm in self.arms.values() if (arm.backbone, arm.data) == (job.backbone, job.data)]
        depth = self.network(job.backbone, job.data).depth
        kept = {depth, *(arm.depth - arm.blocks_removed for arm in arms)}
        widths = {arm.finetune.adapter_width for arm in arms if arm.finetune.method == "adapters"}
        return [*((blocks, None) for blocks in sorted(kept)), *((depth, width) for width in sorted(widths))]


def voted(network: Network, grid: Sequence[int], stage: int, lookahead: int, proxies: Proxies) -> Work:
    """Both proxies of every candidate of a stage, where there is a choice."""
    counts = candidate_counts(grid, grid[stage - 1], stage, lookahead)
    candidates = [network.proxied(network.depth - count, proxies) for count in counts]
    return sum(candidates, Work()) if len(counts) > 1 else Work()


@cache
def torchvision_macs(model: str) -> float:
    """Raises UserError for a name that torchvision does not know."""
    from torchvision import models  # slow to import, and known to few studies

    try:
        weights = models.get_model_weights(model)
    except ValueError:
        raise UserError(f"evaluation.extractors: torchvision has no classifier {model!r}; change `model`") from None
    return 1e9 * weights.DEFAULT.meta["_ops"]  # "GFLOPS" that are GMACs


@cache
def torchvision_width(model: str) -> int:
    """What enters a classifier's last layer (``evaluation/extractors.py``): its shape alone is made."""
    import torch
    from torchvision import models

    with torch.device("meta"):
        layers = models.get_model(model, weights=None).modules()
    last = [layer for layer in layers if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)][-1]
    return last.in_features if isinstance(last, torch.nn.Linear) else last.in_channels
