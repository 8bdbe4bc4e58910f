"""A whole params file: a study, or the settings for a model of one's own."""

from pydantic import Field

from entpruner.params.arms import ArmSpec
from entpruner.params.audit import Audit
from entpruner.params.backbones import Backbone
from entpruner.params.base import Frozen, Named, Seed, Several
from entpruner.params.compute import Compute
from entpruner.params.datasets import Dataset
from entpruner.params.evaluation import Evaluation
from entpruner.params.latents import Latents
from entpruner.params.proxies import Proxies
from entpruner.params.pruning import Pruning
from entpruner.params.reporting import Effects, Figure, Table
from entpruner.params.sampling import Sampling
from entpruner.params.scoring import Scoring
from entpruner.params.training import Finetuning, LabelTable, Training


class Study(Frozen):
    """One params file."""

    study: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Name of the study and of its folder under results/."""
    seeds: Several[Seed] = (0,)
    """Every arm runs once a seed, unless it names its own."""
    datasets: Named[Dataset]
    """upstream: what the backbones are pre-trained on; any others: what they may be moved to."""
    latents: Latents | None = None
    """The autoencoder whose latents the networks work on; without one they work on pixels."""
    backbones: Named[Backbone]
    """The networks by name: each with its process, its shape, and its weights if they are published."""
    pretrain: Training
    """The training of each backbone on upstream, from nothing."""
    adapt: Training
    """From upstream to another data set, before scoring: new labels and these steps, shared by all arms."""
    label_table: LabelTable = "new"
    """What a network that moves to other classes begins with: a new label table; or the first rows of its old one and
    the old row of "no class", as the authors' earlier code did, which kept ImageNet's table."""
    finetune: Finetuning
    """Budget of every arm, pruned or not."""
    scoring: Scoring = Scoring()
    """How the blocks are scored."""
    proxies: Proxies = Proxies()
    """The training-free proxies that vote."""
    pruning: Pruning = Pruning()
    """The stages of pruning, and the vote."""
    sampling: Sampling = Sampling()
    """How the images are sampled that are measured."""
    evaluation: Evaluation = Evaluation()
    """What these images are measured with."""
    compute: Compute = Compute()
    """The device, the precision and the processes."""
    arms: Named[ArmSpec]
    """The rows of the tables by name."""
    tables: Named[Table] = {}
    """The tables by name: which arms, and which columns."""
    figures: Named[Figure] = {}
    """The figures by name."""
    effects: Named[Effects] = {}
    """The effects of criterion and schedule by name: which arms cross both."""
    audit: Audit | None = None
    """What ``make audit`` measures; without it there is no audit."""

    def input_shape(self, data: str) -> tuple[int, int]:
        """Channels and side of what networks see of a data set: of its pixels, or of their latents."""
        images = self.datasets[data]
        if self.latents is None:
            return images.channels, images.image_size
        return self.latents.channels, images.image_size // self.latents.factor


class OwnModel(Frozen):
    """What ``entpruner score``, ``prune`` and ``sample`` do with one's own model and images: sections as a study's."""

    seed: Seed = 0
    """The seed of every random number."""
    latents: Latents | None = None
    """The autoencoder whose latents the model works on, if it does, as the official ones do."""
    label_table: LabelTable = "new"
    """What the model begins with if it does not know the images' classes; see Study."""
    adapt: Training = Training(steps=5000)
    """Training on the images before scoring, if the model does not know their classes."""
    finetune: Finetuning = Finetuning(steps=10_000)
    """All training from the first pruning stage on."""
    scoring: Scoring = Scoring()
    """How the blocks are scored."""
    proxies: Proxies = Proxies()
    """The training-free proxies that vote."""
    pruning: Pruning = Pruning()
    """The stages of pruning, and the vote."""
    sampling: Sampling = Sampling(samples=16, batch_size=16)
    """How images are sampled."""
    compute: Compute = Compute()
    """The device, the precision, and the processes of the trainings; the rest is done by one process."""
