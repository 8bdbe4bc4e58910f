"""The benchmark suite: the plain form computes what the package computes, and every figure can be measured."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import growth  # noqa: E402
import official  # noqa: E402
import scale  # noqa: E402
import suite  # noqa: E402
from comparisons import network  # noqa: E402
from side_by_side import Comparison, measured  # noqa: E402

from entpruner import cli  # noqa: E402
from entpruner.models.network import BlockNetwork  # noqa: E402
from entpruner.models.transformer import Block  # noqa: E402

TINY = suite.DIGITS.model_copy(update={"depth": 4, "hidden_size": 16, "num_heads": 2})


@pytest.mark.parametrize(
    ("plain", "process"), [(official.Diffusion().loss, suite.DIFFUSION), (official.flow_loss, suite.FLOW)]
)
def test_the_plain_loss_is_ours(plain: official.LossOf, process: Any) -> None:
    model, x, y = network(TINY, suite.CPU), torch.rand(8, 1, 8, 8) * 2 - 1, torch.arange(8)
    torch.manual_seed(0)
    loss = plain(model, x, y)
    torch.manual_seed(0)
    t = torch.randint(1000, (8,)) if process is suite.DIFFUSION else torch.rand(8)
    ours = process.losses(model, x, torch.randn_like(x), t, y)["loss"].mean()
    torch.testing.assert_close(ours, loss, rtol=1e-5, atol=1e-6)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "SMALL", TINY)
    monkeypatch.setattr(suite, "DIGITS", TINY)
    monkeypatch.setattr(BlockNetwork, "compile_blocks", lambda _: None)  # the compiler takes long


@pytest.mark.parametrize(
    "name", ["train_digits", "train_bf16", "sample_ddpm", "sample_euler", "sample_sde", "ced_12", "proxies", "vote"]
)
@pytest.mark.usefixtures("tiny")
def test_both_ways_of_a_figure_run_and_give_the_same_numbers(name: str) -> None:
    comparison = suite.FIGURES[name]()
    for way in comparison.ways.values():
        way()
    assert all(difference < 1e-4 for difference in comparison.differences.values())
    assert comparison.differences or name.startswith("train")


@pytest.mark.usefixtures("tiny")
def test_the_other_way_of_ced_runs_each_network_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, modulated = [], Block.modulated
    monkeypatch.setattr(Block, "modulated", lambda *given, **named: runs.append(0) or modulated(*given, **named))
    counts = []
    for way in suite.FIGURES["ced_12"]().ways.values():
        runs.clear()
        way()
        counts.append(len(runs))
    blocks = TINY.depth
    whole, after, again = blocks, blocks * (blocks - 1) / 2, blocks * (blocks - 1)
    assert counts[1] / counts[0] == pytest.approx((whole + again) / (whole + after))


def test_a_score_is_the_same_by_the_warm_process_and_by_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = SimpleNamespace(DEVNULL=None, run=lambda line, **_: cli.main(line[line.index("rule") :]))
    monkeypatch.setattr("comparisons.subprocess", here)
    comparison = suite.FIGURES["commands"]()
    for way in comparison.ways.values():
        assert json.loads(way())["criterion"] == "ced"
    assert list(comparison.differences.values()) == [0]


@pytest.mark.usefixtures("tiny")
def test_figures_are_added_to_the_file_of_the_machine_and_make_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.measure(["sample_euler"], tmp_path, rounds=2)
    suite.measure(["train_digits"], tmp_path, rounds=2)
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_text())
    assert list(content["figures"]) == ["sample_euler", "train_digits"]
    assert [len(times) for times in content["figures"]["train_digits"]["seconds"].values()] == [2, 2, 2]
    page = suite.page([content])
    assert page.count("| sampling, Euler, SiT-S/2, 5 steps of 4 images |") == 2
    assert page.count("| training, DiT of digits, 10 steps of 64 images |") == 2
    assert "against the plain official form" in capsys.readouterr().out


def test_ratios_are_of_times_of_one_round_and_a_missed_bar_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0, 0, 0, 2, 2, 8, 0, 1, 1, 3])  # a round that is not counted, then 2 s and 6 s, 1 s and 2 s
    monkeypatch.setattr("side_by_side.time.perf_counter", lambda: next(clock))
    comparison = Comparison("a thing", {"ours": lambda: None, "theirs": lambda: None}, {"theirs": 4.0}, rounds=2)
    found = measured(comparison, suite.CPU)
    assert found["seconds"] == {"ours": [2, 1], "theirs": [6, 2]}
    assert found["times_as_fast"]["theirs"]["median"] == 2.5
    (row,) = suite.rows_of({"title": "a thing", **found})
    assert row == ["a thing", "ours, against theirs", "2.50×", "2.25–2.75", "≥ 4.00× (missed)", ""]


def test_an_unknown_figure_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["suite.py", "train_did"])
    with pytest.raises(SystemExit):
        suite.main()
    assert "no figure train_did; there are train_dit, train_sit" in capsys.readouterr().err


def test_growth_is_measured_drawn_and_fitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BASE", {"depth": 1, "width": 32, "tokens": 4, "batch": 2})
    points = [growth.measured("depth", depth) for depth in (1, 2)]
    assert all(cost["seconds"] > 0 and cost["bytes"] > 0 for point in points for cost in point["tasks"].values())
    for depth, point in zip((1, 2), points, strict=True):
        point["tasks"]["CED"]["seconds"] = depth**2
    assert growth.exponent(points, "CED", "seconds") == pytest.approx(2)

    network = dict.fromkeys(growth.AXES, points)
    growth.draw(network, tmp_path / "growth.svg")
    assert (tmp_path / "growth.svg").read_text().startswith("<?xml")
    machine = {"device": "a CPU", "torch": "2", "python": "3"}
    arms = [{"arms": 10**power, "seconds": 10.0**power} for power in (1, 2, 3)]
    page = growth.page({"machine": machine, "network": network, "arms": arms})
    assert "| training step | " in page and "CED with depth (p = 2.00)" in page
    assert "The exponent of its time is 1.00." in page


@pytest.mark.usefixtures("tiny")
def test_two_processes_that_share_batches_are_measured_beside_two_that_train_apart() -> None:
    comparison = replace(suite.FIGURES["processes_digits"](), rounds=2)
    found = measured(comparison, suite.CPU)
    assert [len(times) for times in found["seconds"].values()] == [2, 2]
    assert all(seconds > 0 for times in found["seconds"].values() for seconds in times)


def test_a_large_transformer_is_scored_and_larger_ones_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"num_layers": 3, "num_attention_heads": 2, "attention_head_dim": 8, "caption_projection_dim": 16}
    small |= {"sample_size": 8, "pos_embed_max_size": 8, "dual_attention_layers": (0,)}
    monkeypatch.setattr(scale, "SD35_MEDIUM", scale.SD35_MEDIUM | small)
    here = scale.measured(draws=2, side=4)
    assert (here["blocks"], here["draws"]) == (3, 2) and here["ced"] > 0
    weights = scale.unfilled(scale.SD3Transformer2DModel, scale.SD35_MEDIUM)
    handed_on = 3 * 4 + 2 * scale.TEXT  # tokens: image's behind three blocks, and text's, which the last does not have
    held = [*weights.parameters(), *weights.buffers()]
    assert here["memory"] == sum(2 * tensor.numel() for tensor in held) + 2 * 16 * handed_on

    inputs = {key: value.to("meta") for key, value in scale.drawn(1, 4)[0].kwargs.items()}
    found = scale.counted(weights, inputs | {"hidden_states": scale.nothing(1, 16, 4, 4)}, tflops=1e-12)
    assert found["lora"]["scoring"] == 64 * (3 + 1) / 2 * found["flops"]
    machine = {"device": "a CPU", "torch": "2", "python": "3"}
    page = scale.page({"machine": machine, "measured": here, "counted": {"a net": found}, "tflops": 400})
    assert "| CED of 3 blocks |" in page and "| a net | 0.0 B |" in page
