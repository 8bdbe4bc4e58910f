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
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.models.network import BlockNetwork
from entpruner.params.proxies import Ntk
from entpruner.process import Process
from entpruner.proxies.per_sample import gradient_factors, recorded_calls

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
    """κ on N samples: clean x and noise (N, C, H, W), times and labels (N,), all on the device of the model.

    All candidates must get the same samples, with stratified t, and a ``generator`` (CPU) with the same seed, which
    draws the signs of ``projection``. Raises UserError if gradients are not finite.
    """
    model.eval()
    x_t = process.add_noise(x, noise, t)
    shape = (2 * x.shape[1], *x.shape[2:])  # the shape of one output, (2C, H, W)
    predicted = (torch.arange(shape[0]) < x.shape[1])[:, None, None]  # (2C, 1, 1)
    match settings.functional:
        case "prediction":
            probes = [predicted * torch.ones(shape)]
        case "all_outputs":
            probes = [torch.ones(shape)]
        case "projection":
            signs = torch.randint(2, (settings.projections, *shape), generator=generator) * 2.0 - 1
            probes = list(signs * predicted)
    return condition(gram_matrix(model, x_t, t, y, probes))


def gram_matrix(model: BlockNetwork, x_t: Tensor, t: Tensor, y: Tensor, probes: Iterable[Tensor]) -> Tensor:
    """The Gram matrix (N, N) float64 of the per-sample gradients of f_i = Σ probe * output_i, a mean over the probes.

    x_t, t and y are the inputs of the network. There is one forward pass, and one backward pass for each probe
    (2C, H, W). Memory holds the activations of the batch, and the per-sample gradients of one layer at a time.
    """
    with torch.enable_grad(), recorded_calls(model) as calls:
        output = model(x_t, t, y)
    grams = []
    for probe in probes:
        layers = gradient_factors(calls, output, probe.to(output), retain_graph=True)
        grams.append(torch.stack([layer_gram(a, d) for _, a, d in layers]).sum(0))
    return torch.stack(grams).mean(0)


def layer_gram(a: Tensor, d: Tensor) -> Tensor:
    """All <g_i, g_j>, (N, N) float64, of the gradients g_i = Σ_t d[i, t] a[i, t]ᵀ with a (N, T, in), d (N, T, out)."""
    a, d = a.double(), d.double()
    if a.shape[1] == 1:  # the gradients have rank one: <d aᵀ, d' a'ᵀ> = <a, a'> <d, d'>
        a, d = a[:, 0], d[:, 0]
        return (a @ a.T) * (d @ d.T)
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
