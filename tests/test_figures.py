"""Figures: same input, same bytes; nothing smoothed that should not be; bad input named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from entpruner.errors import UserError
from entpruner.params import Scoring
from entpruner.reporting.figures import Curve, SampleRow, curves, entropy_vs_loss, samples, smoothed
from entpruner.scores.context import Scores


def scores(criterion: str, signed: list[float]) -> Scores:
    return Scores(
        criterion=criterion,
        blocks=tuple(range(len(signed))),
        value=tuple(map(abs, signed)),
        signed=tuple(signed),
        stderr=(None, *([0.01] * (len(signed) - 1))),
        draws=8,
        seed=0,
        settings=Scoring(),
    )


def arm(label: str, blocks: list[int]) -> Curve:
    """Four stages of five points."""
    points = [
        {"step": 10 * i, "loss": 1 / (i + 1), "stage": i // 5, "blocks": blocks[i // 5]} for i in range(5 * len(blocks))
    ]
    return Curve("SiT", label, points)


ROW = SampleRow(
    "real", np.full((4, 1, 8, 8), [[[[200]]], [[[0]]], [[[100]]], [[[50]]]], np.uint8), np.array([1, 0, 1, 0])
)


def draw(folder: Path) -> None:
    ced, loss = scores("ced", [0.1, -0.02, 0.003, 0.5]), scores("sensitivity", [0.2, -0.01, 0.01, 0.4])
    entropy_vs_loss({"DiT": (ced, loss), "SiT": (ced, loss)}, folder / "figure2")
    curves([arm("full", [4, 4, 4, 4]), arm("EntPruner 50 %", [4, 3, 3, 2])], folder / "figure8")
    samples([ROW], ["a", "b"], folder / "samples")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    draw(folder)
    return folder


def test_the_same_input_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    draw(tmp_path)
    files = sorted(path.name for path in drawn.iterdir())
    assert files == [f"{name}.{kind}" for name in ("figure2", "figure8", "samples") for kind in ("png", "svg")]
    for name in files:
        assert (drawn / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_figure_2_prints_the_rank_correlation_and_every_block(drawn: Path) -> None:
    svg = (drawn / "figure2.svg").read_text()
    assert svg.count("Spearman ρ = 0.80 (n = 4)") == 2
    assert all(f">{block}</text>" in svg for block in range(4))


def test_samples_are_enlarged_and_not_smoothed(drawn: Path) -> None:
    pixels = np.array(Image.open(drawn / "samples.png").convert("L"))
    counts = {grey: int((pixels == grey).sum()) for grey in (0, 50, 100, 200)}
    assert min(counts.values()) > 0.9 * max(counts[grey] for grey in (50, 100, 200))  # four pictures of one size


def test_samples_stand_in_the_columns_of_their_classes(drawn: Path) -> None:
    pixels = np.array(Image.open(drawn / "samples.png").convert("L"))
    places = [np.nonzero((pixels == grey).sum(axis=0) > 20)[0].mean() for grey in (50, 200, 100)]
    assert places == sorted(places)  # class a: 0, 50; class b: 200, 100


def test_too_few_images_of_a_class_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="real has 2 images of class b, not 3"):
        samples(
            [SampleRow("real", ROW.images.repeat(2, 0)[:6], np.array([0, 0, 0, 1, 1, 0]))],
            ["a", "b"],
            tmp_path / "s",
            3,
        )
    assert not list(tmp_path.iterdir())


def test_scores_of_different_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="figure2: SiT"):
        entropy_vs_loss({"SiT": (scores("ced", [1.0, 2.0]), scores("sensitivity", [1.0]))}, tmp_path / "figure2")


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0.5, 20))
def test_the_average_stays_within_what_it_averages(values: list[float], half_life: float) -> None:
    average = smoothed(np.array(values), half_life)
    assert average[0] == pytest.approx(values[0])
    assert min(values) - 1e-9 <= average.min() and average.max() <= max(values) + 1e-9


def test_the_average_forgets_half_in_a_half_life() -> None:
    average = smoothed(np.array([1.0] * 1000 + [0.0] * 5), half_life=5)
    assert average[-1] == pytest.approx(0.5)
