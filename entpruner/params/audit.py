"""The audit measures what score, proxies and schedule are worth."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from entpruner.params.arms import IN_PARTS, TRANSFORMERS_ONLY, Criterion
from entpruner.params.backbones import Backbone
from entpruner.params.base import Frozen, Name, Named, Positive, Ratio, Several
from entpruner.params.training import Training


class Regime(Frozen):
    """How much is pruned in the audit, and how long is recovered."""

    ratio: Ratio
    """The share of blocks that goes."""
    steps: Positive
    """Steps of recovery. The schedule of the study's finetune is shrunk to them."""


class RegimeTrials(Frozen):
    """The audit's regime is chosen before any criterion is looked at: the first candidate in which random masks differ
    enough, or failing that the one in which they differ most."""

    candidates: Several[Regime]
    """The regimes to try, from mild to hard."""
    masks: int = Field(8, ge=3)
    """Random masks that each candidate is tried with."""
    repeats: int = Field(2, ge=2)
    """Independent recoveries of each mask."""
    share: float = Field(0.8, gt=0, lt=1)
    """Share of the variance of the log distance that must lie between masks, not between recoveries of one. At 0.8
    masks spread twice as far as recoveries."""


class AuditedCriterion(Frozen):
    """A criterion with settings of its own."""

    criterion: Criterion
    """What ranks the blocks."""
    rank_by: Literal["value", "signed"] = "value"
    """What blocks are ranked by: the score, or the score before its absolute value was taken."""
    scoring: dict[str, Any] = {}
    """Keys of the study's scoring section that it changes."""


class AuditedProxies(Frozen):
    """NTK and ZiCo of many sub-networks, and their noise."""

    samples: Several[Annotated[int, Field(ge=2)]] = (4, 8, 16, 32)
    """Numbers of samples N that the NTK is estimated from; each is tried."""
    batches: Several[Annotated[int, Field(ge=8)]] = (8, 16, 32)
    """Numbers of batches D that ZiCo is estimated from; each is tried."""
    repeats: int = Field(3, ge=2)
    """Independent draws of samples and batches."""
    chains: int = Field(8, ge=5)
    """Random orders of the blocks, along each of which sub-networks of several depths are nested."""
    ratios: Several[Ratio] = (0.25, 0.5, 0.75)
    """Depths along a chain: shares of blocks removed."""


class AuditedSchedules(Frozen):
    """The schedules, and the weights of the vote, in two regimes: the audit's own, and one of the paper's ratios with
    the study's fine-tuning."""

    ratio: Ratio = 0.5
    """The share of blocks that goes in the second regime."""
    weights: Several[Annotated[float, Field(ge=0, le=1)]] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """NTK's weights in the vote; ZiCo has the rest of 1. 0.5 must be among them: the others are held against it."""

    @field_validator("weights")
    @classmethod
    def _with_equal(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if 0.5 not in weights:
            raise ValueError("a list with 0.5 in it, which the other weights are compared with")
        return weights


class AuditedStability(Frozen):
    """Whether CED, with other draws, ranks the blocks in the same order again."""

    draws: Several[Positive] = (64, 256, 1024, 4096)
    """Numbers of draws N to rank with. The study's own number is always among them."""
    repeats: int = Field(3, ge=2)
    """Independent sets of draws of each number."""


class Audit(Frozen):
    """What score, proxies and schedule are worth (``make audit``)."""

    seeds: Annotated[Several[Annotated[int, Field(ge=0)]], Field(min_length=3)] = (0, 1, 2)
    """Each with a backbone trained from nothing or, where its weights are published, adapted anew; at least three, for
    the intervals."""
    backbones: Several[Name]
    """On a U-Net or a transformer of diffusers, what cannot measure it is left out: the proxies, and some criteria."""
    data: Name
    """The data set that all of it is measured on."""
    samples: Positive = 240
    """Images a distance is measured on."""
    masks: int = Field(30, ge=5)
    """Random sets of blocks of the regime's size; all there are, if these are fewer."""
    finetune_steps: Positive | None = None
    """Steps to which the study's fine-tuning is shrunk where the audit repeats it: for the schedules at the paper's
    ratio, and before CED ranks again. Without it, all of them."""
    regime: RegimeTrials
    """How much is pruned, and how long is recovered."""
    criteria: Named[AuditedCriterion] = Field(min_length=1)
    """The criteria that are held against each other, by name."""
    proxies: AuditedProxies = AuditedProxies()
    """The sub-networks that the proxies are measured on, and with how many samples."""
    schedules: AuditedSchedules = AuditedSchedules()
    """The schedules and the weights of the vote that are compared."""
    stability: AuditedStability = AuditedStability()
    """How often CED ranks the blocks again."""

    def steps_of(self, finetune: Training) -> int:
        """Steps of the study's fine-tuning when the audit repeats it."""
        return self.finetune_steps or finetune.steps

    def criteria_for(self, backbone: Backbone) -> dict[str, AuditedCriterion]:
        """The audited criteria that can score this backbone."""
        barred = TRANSFORMERS_ONLY if backbone.unet else () if backbone.has_parts else IN_PARTS
        return {name: audited for name, audited in self.criteria.items() if audited.criterion not in barred}
