"""How near generated images are to real ones: Fréchet distance, KID, precision, recall, Inception Score, agreement.

The formulas are torch-fidelity's. The features are computed here once, in float64 (``extractors.py`` says why).

A distance on a small sample is biased upwards, so two more distances are measured on samples of equal size: the floor,
from one half of the real images to the other, and the distance from as many generated images to one half. Few images
make both uncertain, so each is a mean over several random halvings.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.evaluation.extractors import FeatureNet
from entpruner.params.evaluation import Evaluation
from entpruner.system import parallel
from entpruner.system.randomness import generator, seed_of

Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

HALVINGS = 5
SPLIT = 5000  # images of a split of the Inception Score; published scores are means over ten splits of 50,000 images


def evaluate(
    real: ImageSet, generated: ImageSet, nets: Sequence[FeatureNet], settings: Evaluation, *, seed: int
) -> dict[str, float]:
    """All metrics by name. The same seed gives the same numbers.

    ``generated.labels`` are the classes that were asked for. Each net has the metrics below. ``<fd>`` stands for
    ``fid`` if the net is InceptionV3, and for ``fd_<name>`` otherwise. The other names then end in ``_<name>`` too.

    =======================  =========================================================================================
    ``<fd>``                 Fréchet distance from all generated images to all real images
    ``<fd>_floor``           distance from one half of the real images to the other: mean over ``HALVINGS`` halvings
    ``<fd>_floor_std``       standard deviation of the floor over the halvings
    ``<fd>_half``            distance from as many generated images to one half: mean over the same halvings
    ``<fd>_ratio``           ``<fd>_half`` divided by ``<fd>_floor``; it is 1 if the images are as good as real ones
    ``<fd>_rank_deficient``  1 if a half has no more images than features, so that its covariance is singular
    ``kid``, ``kid_std``     kernel distance: mean and standard deviation over ``settings.kid_subsets`` subsets
    ``precision``            share of generated images inside the manifold of the real images
    ``recall``               share of real images inside the manifold of the generated images
    ``is``                   Inception Score of the generated images, if the net has logits
    =======================  =========================================================================================

    Precision and recall see at most ``settings.manifold_images`` images of each kind. ``agreement`` and
    ``agreement_<class>`` are the shares of the images that the study's own classifier assigns to the class that was
    asked for, if it is among the nets. ``kid_subset_size`` is the size that was used: the setting, or the number of
    images if there are fewer.

    Several processes share the work of the feature nets. The first returns the metrics, and the others return {}.

    Raises UserError if there are too few images for a half and its ``settings.neighbours``.
    """
    half = min(len(real) // 2, len(generated))
    if half <= settings.neighbours:
        needed = settings.neighbours + 1
        raise UserError(
            f"evaluation: {len(generated)} generated and {len(real)} real images are too few for "
            f"evaluation.neighbours {settings.neighbours}; give at least {needed} and {2 * needed}"
        )
    halvings = random_halvings(real.labels, generated.labels, half, seed)
    subset_size = min(settings.kid_subset_size, len(real), len(generated))
    metrics: dict[str, float] = {
        "samples": len(generated),
        "real_images": len(real),
        "half_images": half,
        "kid_subset_size": subset_size,
    }
    features = [(net.features(real.images), net.features(generated.images)) for net in nets]
    if not parallel.is_first():
        return {}
    for net, (f_real, f_generated) in zip(nets, features, strict=True):
        floors = [frechet_distance(f_real[other], f_real[anchor]) for anchor, other, _ in halvings]
        halves = [frechet_distance(f_generated[drawn], f_real[anchor]) for anchor, _, drawn in halvings]
        kid, kid_std = kernel_distance(f_generated, f_real, settings.kid_subsets, subset_size, seed_of(seed, "kid"))
        drawn = [at_most(settings.manifold_images, f, generator(seed, "manifold")) for f in (f_generated, f_real)]
        precision, recall = precision_recall(drawn[0], drawn[1], settings.neighbours)
        fd = net.key("fd")
        metrics |= {
            fd: frechet_distance(f_generated, f_real),
            f"{fd}_floor": float(np.mean(floors)),
            f"{fd}_floor_std": float(np.std(floors)),
            f"{fd}_half": float(np.mean(halves)),
            f"{fd}_ratio": float(np.mean(halves) / np.mean(floors)),
            f"{fd}_rank_deficient": float(half <= f_real.shape[1]),
            net.key("kid"): kid,
            f"{net.key('kid')}_std": kid_std,
            net.key("precision"): precision,
            net.key("recall"): recall,
        }
        if net.logits is not None:
            logits = net.logits(f_generated)
            metrics[net.key("is")] = inception_score(logits, seed_of(seed, "is"))
            if net.kind == "classifier":  # no other net knows the study's classes
                metrics |= class_agreement(logits.argmax(dim=1).numpy(), generated.labels)
    return metrics


def random_halvings(
    real_labels: Labels, generated_labels: Labels, half: int, seed: int
) -> list[tuple[Indices, Indices, Indices]]:
    """Indices of two disjoint halves of the real images, and of as many generated images, ``HALVINGS`` times.

    Each half has the classes nearly in the proportion of all images.
    """
    halvings = []
    for index in range(HALVINGS):
        draw = generator(seed, "evaluation", index)
        order = stratified_order(real_labels, draw)
        drawn = stratified_order(generated_labels, draw)[:half]
        halvings.append((order[:half], order[half : 2 * half], drawn))
    return halvings


def stratified_order(labels: Labels, draw: torch.Generator) -> Indices:
    """A random order of the indices. Each part of it has the classes nearly in the proportion of all labels."""
    place = np.empty(len(labels))  # the images are sorted by it; those of a class are spread evenly over [0, 1)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[torch.randperm(len(members), generator=draw).numpy()]
        place[members] = (np.arange(len(members)) + torch.rand(len(members), generator=draw).numpy()) / len(members)
    return np.argsort(place, kind="stable")


def frechet_distance(features_1: Tensor, features_2: Tensor) -> float:
    """The squared Fréchet distance between Gaussians that are fitted to two sets of features, (n, D) and (m, D)."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(features.double()) for features in (features_1, features_2)]
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


def kernel_distance(generated: Tensor, real: Tensor, subsets: int, subset_size: int, seed: int) -> tuple[float, float]:
    """The KID, an unbiased MMD² with a cubic polynomial kernel: mean and standard deviation over random subsets."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    result = kid_features_to_metric(
        generated,
        real,
        kid_subsets=subsets,
        kid_subset_size=subset_size,
        rng_seed=seed % 2**32,  # NumPy's RandomState takes 32 bits
        verbose=False,
    )
    return result[KEY_METRIC_KID_MEAN], result[KEY_METRIC_KID_STD]


def at_most(images: int, features: Tensor, draw: torch.Generator) -> Tensor:
    """The features (N, D) of as many ``images``, drawn without replacement. Fewer features are returned as they are."""
    return features if len(features) <= images else features[torch.randperm(len(features), generator=draw)[:images]]


def precision_recall(generated: Tensor, real: Tensor, neighbours: int) -> tuple[float, float]:
    """Improved precision and recall (Kynkäänniemi et al. 2019). A manifold is the union of balls around the images.

    The radius of a ball is the distance to the neighbour of number ``neighbours``.
    """
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    result = prc_features_to_metric(
        generated, real, prc_neighborhood=neighbours, prc_batch_size=2000, save_cpu_ram=True, verbose=False
    )
    return result[KEY_METRIC_PRECISION], result[KEY_METRIC_RECALL]


def inception_score(logits: Tensor, seed: int) -> float:
    """The Inception Score (Salimans et al. 2016) of logits (N, classes), a mean over splits of the images.

    The score of a split is exp of the mean KL divergence of p(class | image) from p(class) within the split. It is 1 if
    all images are alike to the net, and at most the number of classes. A small split has too low a score, so splits
    have ``SPLIT`` images or more. The seed decides how the images are shuffled over the splits.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric

    splits = max(1, len(logits) // SPLIT)
    result = isc_features_to_metric(logits.double(), splits=splits, shuffle=True, rng_seed=seed % 2**32)
    return result[KEY_METRIC_ISC_MEAN]


def class_agreement(found: Labels, asked: Labels) -> dict[str, float]:
    """The share of the images (N,) whose ``found`` class is the one ``asked`` for: of all images, and of each class."""
    agreed = found == asked
    per_class = {f"agreement_{label}": float(agreed[asked == label].mean()) for label in np.unique(asked)}
    return {"agreement": float(agreed.mean()), **per_class}
