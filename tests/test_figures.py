"""Figures: same input, same bytes; nothing smoothed that should not be; bad input named."""

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from entpruner.commands import figure as figure_command
from entpruner.data.store import ImageSet
from entpruner.errors import UserError
from entpruner.params.reporting import ArmsFigure, ScoresFigure
from entpruner.params.scoring import Scoring
from entpruner.reporting.arm_figures import (
    Curve,
    DistanceRow,
    KeptBlocks,
    curves,
    distance_vs_ratio,
    kept_blocks,
    samples,
    smoothed,
)
from entpruner.reporting.figures import COLOURS, line_styles
from entpruner.reporting.score_figures import CHANGE, ced_by_block, ced_by_timestep, entropy_vs_loss
from entpruner.rules.report import FigureSettings
from entpruner.scores.context import Scores


def scores(criterion: str, signed: list[float], **more: Any) -> Scores:
    return Scores(
        criterion=criterion,
        blocks=tuple(range(len(signed))),
        value=tuple(map(abs, signed)),
        signed=tuple(signed),
        stderr=(None, *([0.01] * (len(signed) - 1))),
        draws=8,
        seed=0,
        settings=Scoring(),
        **more,
    )


def arm(label: str, blocks: list[int]) -> Curve:
    """Four stages of five points."""
    points = [
        {"step": 10 * i, "loss": 1 / (i + 1), "stage": i // 5, "blocks": blocks[i // 5]} for i in range(5 * len(blocks))
    ]
    return Curve("SiT", label, points)


GREYS = np.full((4, 1, 8, 8), [[[[200]]], [[[0]]], [[[100]]], [[[50]]]], np.uint8)


def draw(folder: Path) -> None:
    ced, loss = scores("ced", [0.1, -0.02, 0.003, 0.5]), scores("sensitivity", [0.2, -0.01, 0.01, 0.4])
    entropy_vs_loss({"DiT": ced, "SiT": ced}, {"DiT": loss, "SiT": loss}, folder / "figure2")
    curves([arm("full", [4, 4, 4, 4]), arm("EntPruner 50 %", [4, 3, 3, 2])], folder / "figure8")
    samples([("real", ImageSet(GREYS, np.array([1, 0, 1, 0]), 2))], ["a", "b"], folder / "samples")
    ced_by_block({"DiT": ced}, folder / "ced_by_block")
    ced_by_timestep({"DiT": timesteps([[1.0, -1.0, None, 0.0], [0.5, 0.0, 0.0, -0.25]])}, folder / "ced_by_timestep")
    kept_blocks([KeptBlocks("all", range(4), 4), KeptBlocks("half", [0, 3], 4)], folder / "kept_blocks")
    distance_vs_ratio(ROWS, "fd_classifier", folder / "distance_vs_ratio")


ROWS = [
    DistanceRow("SiT", "full", None, [1.0, 1.2]),
    DistanceRow("SiT", "ours", 0.5, [3.0, 3.5]),
    DistanceRow("SiT", "ours", 0.25, [2.0]),
    DistanceRow("SiT", "theirs", 0.5, [4.0]),
]


def test_a_loss_axis_that_spans_little_says_where_its_ticks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *to, **how: (drawn.append(self), save(self, *to, **how)))
    losses = [1.15, 1.1, 1.0, 0.95]
    points = [{"step": i, "loss": loss, "stage": 0, "blocks": 4} for i, loss in enumerate(losses)]
    curves([Curve("SiT", "full", points)], tmp_path / "figure8")
    axis = drawn[0].axes[0].yaxis
    ticks = [tick for minor in (False, True) for tick in axis.get_ticklabels(minor=minor) if tick.get_text()]
    assert len(ticks) > 3
    assert [float(tick.get_text()) for tick in ticks] == pytest.approx([tick.get_position()[1] for tick in ticks])


def timesteps(changes: list[list[float | None]]) -> Scores:
    return scores("ced", [0.1] * len(changes), per_timestep=changes)


def pixels_of(file: Path, colour: Any, tolerance: int = 0) -> int:
    """How many pixels have a colour."""
    pixels = np.array(Image.open(file).convert("RGB"), dtype=int)
    wanted = [round(255 * part) for part in to_rgb(colour)]
    return int((np.abs(pixels - wanted) <= tolerance).all(axis=2).sum())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    draw(folder)
    return folder


def test_the_same_input_gives_the_same_bytes(drawn: Path, tmp_path: Path) -> None:
    draw(tmp_path)
    names = [path.name for path in drawn.iterdir()]
    assert len(names) == 2 * 7 and {Path(name).suffix for name in names} == {".png", ".svg"}
    for name in names:
        assert (drawn / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_figure_2_prints_the_rank_correlation_and_every_block(drawn: Path) -> None:
    svg = (drawn / "figure2.svg").read_text()
    assert svg.count("Spearman ρ = 0.80 (n = 4)") == 2
    assert all(f">{block}</text>" in svg for block in range(4))


def test_samples_are_enlarged_and_not_smoothed_in_the_columns_of_their_classes(drawn: Path) -> None:
    pixels = np.array(Image.open(drawn / "samples.png").convert("L"))
    counts = {grey: int((pixels == grey).sum()) for grey in (0, 50, 100, 200)}
    assert min(counts.values()) > 0.9 * max(counts[grey] for grey in (50, 100, 200))  # four pictures of one size
    places = [np.nonzero((pixels == grey).sum(axis=0) > 20)[0].mean() for grey in (50, 200, 100)]
    assert places == sorted(places)  # class a: 0, 50; class b: 200, 100


def test_too_few_images_of_a_class_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="real has 2 images of class b, not 3"):
        images = ImageSet(GREYS.repeat(2, 0)[:6], np.array([0, 0, 0, 1, 1, 0]), 2)
        samples([("real", images)], ["a", "b"], tmp_path / "s", per_class=3)
    assert not list(tmp_path.iterdir())


def test_samples_of_several_data_sets_are_refused(tmp_path: Path) -> None:
    arm = {"name": "full", "label": "", "backbone": "sit", "process": "flow", "schedule": "none", "criterion": None,
           "ratio": None, "seed": 0, "depth": 4, "start": "adapted"}  # fmt: skip
    settings = FigureSettings(kind="samples", arms=[arm | {"data": data} for data in ("birds", "flowers")])
    with pytest.raises(UserError, match="figure grid: its arms are of birds, flowers; see its key `only`"):
        figure_command.run(settings, results=tmp_path, out=tmp_path / "grid")


def test_scores_of_different_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="figure2: SiT"):
        entropy_vs_loss({"SiT": scores("ced", [1.0, 2.0])}, {"SiT": scores("sensitivity", [1.0])}, tmp_path / "figure2")


# --------------------------------------------------------------------------------------- blocks, timesteps and ratios


def test_every_kind_of_figure_has_a_drawing() -> None:
    kinds = {kind for figure in (ScoresFigure, ArmsFigure) for kind in get_args(figure.model_fields["kind"].annotation)}
    assert set(get_args(FigureSettings.model_fields["kind"].annotation)) == kinds


def test_opposite_changes_have_opposite_colours_and_none_is_white(drawn: Path) -> None:
    file = drawn / "ced_by_timestep.png"
    low, high, half = (pixels_of(file, CHANGE(place)[:3], tolerance=2) for place in (0.0, 1.0, 0.75))
    assert 5000 < low == pytest.approx(high, rel=0.1)  # 1 and -1, a cell each
    assert half == pytest.approx(low, rel=0.1)  # 0.5
    assert CHANGE(0.5)[:3] == pytest.approx((1, 1, 1), abs=0.005)


def test_a_heat_map_of_one_bin_or_none_is_refused(tmp_path: Path) -> None:
    for one in (timesteps([[0.1], [0.2]]), scores("ced", [0.1, 0.2])):
        with pytest.raises(UserError, match=r"figure heat: SiT: [01] timestep bins make no map"):
            ced_by_timestep({"SiT": one}, tmp_path / "heat")
    assert not list(tmp_path.iterdir())


def test_kept_blocks_fill_their_cells(tmp_path: Path) -> None:
    filled = []
    for kept in ([0, 1, 2, 3], [0, 3]):
        kept_blocks([KeptBlocks("arm", kept, 4)], tmp_path / "kept")
        filled.append(pixels_of(tmp_path / "kept.png", COLOURS[0]))
    assert filled[0] == pytest.approx(2 * filled[1], rel=0.02)


def test_forty_arms_keep_their_order_and_their_own_height(tmp_path: Path) -> None:
    arms = [KeptBlocks(f"arm {i}", [i % 28], 28) for i in range(40)]
    kept_blocks(arms, tmp_path / "forty")
    svg = (tmp_path / "forty.svg").read_text()
    assert re.findall(r">(arm \d+)</text>", svg) == [arm.label for arm in arms]
    assert Image.open(tmp_path / "forty.png").height > 40 * 0.18 * 200  # inches, dots an inch


def test_only_several_seeds_have_error_bars(tmp_path: Path) -> None:
    single = [DistanceRow(row.panel, row.label, row.ratio, row.distances[:1]) for row in ROWS]
    distance_vs_ratio(single, "fd", tmp_path / "single")
    distance_vs_ratio(ROWS, "fd", tmp_path / "several")
    bars = [(tmp_path / f"{name}.svg").read_text().count("LineCollection") for name in ("single", "several")]
    assert bars == [0, 1]  # of "ours"; "theirs" has a single seed


def test_a_distance_against_no_ratio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="figure d: no arm of SiT is pruned"):
        distance_vs_ratio(ROWS[:1], "fd", tmp_path / "d")


def test_twenty_one_lines_can_be_told_apart() -> None:
    styles = line_styles(map(str, range(21)))
    assert len({tuple(style.values()) for style in styles.values()}) == 21


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=20), st.floats(0.5, 20))
def test_the_average_stays_within_what_it_averages(values: list[float], half_life: float) -> None:
    average = smoothed(np.array(values), half_life)
    assert average[0] == pytest.approx(values[0])
    assert min(values) - 1e-9 <= average.min() and average.max() <= max(values) + 1e-9


def test_the_average_forgets_half_in_a_half_life() -> None:
    average = smoothed(np.array([1.0] * 1000 + [0.0] * 5), half_life=5)
    assert average[-1] == pytest.approx(0.5)
