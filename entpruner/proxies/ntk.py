"""The condition number of the NTK, which says how evenly a network can learn a batch. Smaller is better.

    κ = λ_max / λ_min of the Gram matrix G_ij = <∂f_i/∂W, ∂f_j/∂W>

W are the trainable parameters with ``weight`` in their names. Sources: TE-NAS (Chen et al. 2021), and AutoProg-Zero,
the public code that is closest to the paper's. This code differs from them: the inputs are noised x_t with stratified
t, the network is in evaluation mode, the Gram matrix is float64, one backward pass serves all samples, and a
rank-deficient matrix is reported as such.

The scalar f_i of an output decides what κ means, so it is a setting:

    prediction   the sum of the prediction's C channels: one direction of the output, nearly its mean
    all_outputs  the sum of all 2C output channels (TE-NAS, AutoProg-Zero). The other half is the variance of a
                 denoising step in DiT. In SiT it is never trained, and SiT's own forward pass does not return it.
    projection   random signs (Rademacher) times the prediction's C channels, G averaged over K sign vectors: an
                 unbiased estimate of the trace NTK, which sums over all outputs
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.proxies import Ntk
from entpruner.process import Process
from entpruner.proxies.per_sample import LayerGradients, Proxy, take_gradients

# λ_min at or below this share of λ_max cannot be told from zero. Eigenvalues are squares of the singular values of the
# gradients, and float32 gradients have an error of about 1e-5 of the largest singular value.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True)
class NtkResult:
    """The condition number, which a rank-deficient Gram matrix does not have."""

    kappa: float | None
    """None if the Gram matrix is rank-deficient; such a network ranks last. It is never negative or infinite."""
    log10_kappa: float | None
    rank_deficient: bool
    gram: Tensor  # (N, N) float64
    eigenvalues: Tensor  # (N,) float64, ascending


class GramMatrices(Proxy):
    """The Gram matrices of the per-sample gradients of f_i = Σ probe * output_i, each a mean over the probes.

    x_t (N, C, H, W), t and y (N,) are the inputs of the network, and ``probes`` are (K, 2C, H, W). The samples pass the
    network once for each probe.
    """

    def __init__(self, x_t: Tensor, t: Tensor, y: Tensor, probes: Tensor) -> None:
        self.samples, self.probes = len(t), probes
        x_t, t, y = (torch.cat([part] * len(probes)) for part in (x_t, t, y))
        self.inputs = x_t, t, y
        self.sums: dict[tuple[int, int], Tensor] = {}
        """By candidate and P, the products (N*P, N*P) of ``layer_products``, summed over layers and probes."""

    def at_output(self, output: Tensor) -> Tensor:
        return self.probes.to(output).repeat_interleave(self.samples, dim=0)

    def take(self, candidate: int, gradients: LayerGradients) -> None:
        parts = (torch.split(part, self.samples) for part in (gradients.a, gradients.d))  # those of each probe
        for a, d in zip(*parts, strict=True):
            products = layer_products(a, d)
            key = candidate, len(products) // self.samples
            if key in self.sums:
                self.sums[key] += products
            else:
                self.sums[key] = products

    def gram(self, candidate: int) -> Tensor:
        """The Gram matrix (N, N) float64 of a candidate."""
        n = self.samples
        sums = [total.view(n, p, n, p).sum((1, 3)) for (own, p), total in self.sums.items() if own == candidate]
        return torch.stack(sums).sum(0) / len(self.probes)


def gram_matrices(
    process: Process, x: Tensor, noise: Tensor, t: Tensor, y: Tensor, settings: Ntk, generator: torch.Generator
) -> GramMatrices:
    """The proxy on N samples: clean x and noise (N, C, H, W), times and labels (N,), all on the device of the model.

    ``generator`` (CPU) draws the signs of ``projection``. The samples should have stratified t.
    """
    shape = (2 * x.shape[1], *x.shape[2:])  # the shape of one output, (2C, H, W)
    predicted = (torch.arange(shape[0]) < x.shape[1])[:, None, None]  # (2C, 1, 1)
    match settings.functional:
        case "prediction":
            probes = predicted * torch.ones(1, *shape)
        case "all_outputs":
            probes = torch.ones(1, *shape)
        case "projection":
            probes = predicted * (torch.randint(2, (settings.projections, *shape), generator=generator) * 2.0 - 1)
    return GramMatrices(process.add_noise(x, noise, t), t, y, probes)


def ntk(
    model: BlockNetwork,
    process: Process,
    x: Tensor,
    noise: Tensor,
    t: Tensor,
    y: Tensor,
    settings: Ntk,
    generator: torch.Generator,
) -> NtkResult:
    """κ of a whole network, on the samples that ``gram_matrices`` describes.

    Raises UserError if gradients are not finite.
    """
    grams = gram_matrices(process, x, noise, t, y, settings, generator)
    take_gradients(model, [range(len(model.blocks))], grams)
    return condition(grams.gram(0))


def layer_products(a: Tensor, d: Tensor) -> Tensor:
    """Products (N*P, N*P) float64, whose sums over P positions are all <g_i, g_j> of g_i = Σ_t d[i, t] a[i, t]ᵀ.

    a is (N, T, in), and d is (N, T, out). Products <a_it, a_js> <d_it, d_js> of all positions (P = T) are taken where
    they need fewer multiplications than the gradients and their products (P = 1).
    """
    (n, tokens, inputs), outputs = a.shape, d.shape[2]
    a, d = a.double(), d.double()
    if (n * tokens) ** 2 * (inputs + outputs) <= (n * tokens + n**2) * inputs * outputs:
        a, d = a.flatten(0, 1), d.flatten(0, 1)
        return (a @ a.T).mul_(d @ d.T)
    g = (d.mT @ a).flatten(1)  # (N, out*in)
    return g @ g.T


def condition(gram: Tensor) -> NtkResult:
    """λ_max / λ_min of a Gram matrix (N, N) float64. Raises UserError if it is not finite."""
    if not gram.isfinite().all():
        raise UserError("ntk: the network's gradients are not finite numbers; check the weights it was given")
    eigenvalues = torch.linalg.eigvalsh(gram).cpu()
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    if smallest <= RANK_TOLERANCE * largest:
        return NtkResult(None, None, True, gram.cpu(), eigenvalues)
    kappa = largest / smallest
    return NtkResult(kappa, math.log10(kappa), False, gram.cpu(), eigenvalues)
