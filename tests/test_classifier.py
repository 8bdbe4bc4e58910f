from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.evaluation.classifier import Classifier, accuracy, fit, load_classifier, save_classifier, shifted
from entpruner.params.evaluation import ClassifierTraining

CPU = torch.device("cpu")
SETTINGS = ClassifierTraining(steps=60, batch_size=32, learning_rate=0.01, width=8, features=16)


def digits(first: int) -> tuple[ImageSet, ImageSet]:
    """Five digits of scikit-learn's, as bytes: every fifth image is held out."""
    images, targets = load_digits(return_X_y=True)
    images = np.round(images.reshape(-1, 1, 8, 8) * 255 / 16).astype(np.uint8)
    chosen = (first <= targets) & (targets < first + 5)
    images, labels = images[chosen], targets[chosen] - first
    held_out = np.arange(len(labels)) % 5 == 0
    return ImageSet(images[~held_out], labels[~held_out], 5), ImageSet(images[held_out], labels[held_out], 5)


@pytest.fixture(scope="module")
def trained() -> Classifier:
    return fit(digits(0)[0], SETTINGS, seed=0, artefact="classifier/upstream", device=CPU)


def test_it_learns_digits_that_it_has_not_seen(trained: Classifier) -> None:
    # A tenth of the default budget; the default reaches 0.97 and more.
    assert accuracy(trained, digits(0)[1], batch_size=100) > 0.9


def test_the_seed_decides_every_bit() -> None:
    def weights(seed: int, elsewhere: int) -> Tensor:
        torch.manual_seed(elsewhere)  # nothing may come from the global generator
        brief = SETTINGS.model_copy(update={"steps": 3})
        classifier = fit(digits(0)[0], brief, seed=seed, artefact="classifier/upstream", device=CPU)
        return torch.cat([parameter.flatten() for parameter in classifier.parameters()])

    assert torch.equal(weights(0, elsewhere=1), weights(0, elsewhere=2))
    assert not torch.equal(weights(0, elsewhere=1), weights(1, elsewhere=1))


def test_logits_are_the_head_of_the_features(trained: Classifier) -> None:
    x = torch.rand(3, 1, 8, 8)
    assert trained.features(x).shape == (3, SETTINGS.features)
    torch.testing.assert_close(trained(x), trained.head(trained.features(x)))


def test_it_survives_the_disk(trained: Classifier, tmp_path: Path) -> None:
    save_classifier(tmp_path, trained)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(load_classifier(tmp_path)(x), trained(x))
    weights = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="no whole classifier"):
        load_classifier(tmp_path)


def test_shifts_move_by_at_most_a_pixel_and_keep_the_size() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    seen = set()
    for seed in range(60):
        moved = shifted(x, torch.Generator().manual_seed(seed))
        assert moved.shape == x.shape and moved.sum() == 1
        seen.add(tuple(moved[0, 0].nonzero()[0].tolist()))
    assert seen == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
