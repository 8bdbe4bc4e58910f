"""Low-rank updates, which a fine-tuning may train, and the search for learned masks."""

from pydantic import Field

from entpruner.params.base import Frozen, Positive


class Lora(Frozen):
    """Low-rank updates of every linear layer of the blocks (Hu et al. 2022); merged into the weights afterwards."""

    rank: Positive = 8
    """Rank of each update."""
    alpha: float = Field(8.0, gt=0)
    """The update is scaled by alpha / rank."""
