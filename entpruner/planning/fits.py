"""FLOPs of what is computed of features (``evaluation/fidelity.py``): in float64, on the processor.

Of matrix products, and of the eigenvalues of a general matrix (D, D): 10 D³ (Golub and Van Loan, "Matrix Computations",
7.5). Numbers of images n and m, of features D.
"""

from entpruner.params.evaluation import Evaluation

HALVINGS = 5  # each with two distances; as in evaluation/fidelity.py, which a test holds it to


def evaluation(real: int, generated: int, width: int, settings: Evaluation) -> float:
    """All metrics on one feature net."""
    subset = min(settings.kid_subset_size, real, generated)
    seen = min(settings.manifold_images, real) + min(settings.manifold_images, generated)
    kernels = settings.kid_subsets * 3 * 2 * subset**2 * width
    manifolds = 2 * seen**2 * width  # all pairs of images, both ways
    return distances(real, generated, width) + kernels + manifolds


def distances(real: int, generated: int, width: int) -> float:
    """Of all images, and of the halves."""
    half = min(real // 2, generated)
    return frechet(real, generated, width) + 2 * HALVINGS * frechet(half, half, width)


def frechet(n: int, m: int, width: int) -> float:
    """A Fréchet distance: two covariances, their product, and its eigenvalues."""
    return 2 * (n + m) * width**2 + 2 * width**3 + 10 * width**3
