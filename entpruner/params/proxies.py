"""The training-free proxies that vote."""

from typing import Literal

from pydantic import Field

from entpruner.params.base import Frozen, Positive


class Ntk(Frozen):
    """NTK condition number."""

    samples: int = Field(16, ge=2)
    """Samples N: the Gram matrix is N x N."""
    functional: Literal["prediction", "all_outputs", "projection"] = "prediction"
    """Scalar whose per-sample gradients are taken: the sum of the predicted noise or velocity; the sum of all output
    channels, whose other half is DiT's variance and never trained in SiT (AutoProg-Zero); or random signs times the
    prediction."""
    projections: Positive = 4
    """Random sign vectors of the ``projection`` functional."""

    @property
    def probes(self) -> int:
        """How many times a sample is differentiated."""
        return self.projections if self.functional == "projection" else 1


class Zico(Frozen):
    """ZiCo: gradient mean over spread across batches."""

    batches: int = Field(8, ge=8)
    """Number of batches D. With fewer than 8 the ratio depends on the seed more than on the network."""
    batch_size: Positive = 16
    """Images of each batch."""
    reduction: Literal["sum", "mean"] = "sum"
    """How layers are put together: the published sum, which grows with depth, or the mean."""


class Proxies(Frozen):
    """Training-free predictors that vote on a sub-network."""

    ntk: Ntk = Ntk()
    """The condition number of the NTK."""
    zico: Zico = Zico()
    """ZiCo."""
