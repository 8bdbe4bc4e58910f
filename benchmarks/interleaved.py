"""Ways of computing the same thing, timed in turn in one process: what all suffer from cancels in their ratios."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture
from entpruner.system.files import write_json
from entpruner.system.recording import Stopwatch


def parser(description: str | None, **sizes: int) -> argparse.ArgumentParser:
    """The options that the benchmarks share; ``sizes`` are the defaults of the network's shape and of the data."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {
        "depth": 12,
        "hidden": 64,
        "heads": 4,
        "size": 8,
        "channels": 1,
        "repeats": 5,
        **sizes,
    }.items():
        options.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    options.add_argument("--device", default="cpu", help="default cpu")
    options.add_argument("--threads", type=int, default=1, help="CPU threads; default 1")
    options.add_argument("--out", type=Path, help="write the figures and the machine's description here as JSON")
    return options


def network(options: argparse.Namespace) -> Transformer:
    """An initialised network, its zero weights made non-zero so that every block matters."""
    random = torch.Generator().manual_seed(0)
    model = Transformer(
        Architecture(
            depth=options.depth, hidden_size=options.hidden, num_heads=options.heads, patch_size=2,
            input_size=options.size, in_channels=options.channels, num_classes=10,
        )
    ).initialize(random)  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=random)
    return model.to(options.device)


def compare(ways: dict[str, Callable[[], object]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of each repeat of every way, taking turns, after one untimed round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if device != "cpu":
                torch.cuda.synchronize()
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """Median over the rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def report(options: argparse.Namespace, title: str, rows: dict[str, list[float]], **figures: Any) -> None:
    """Print a table of median, least and most seconds, and the figures; write them all to ``--out``."""
    print(f"{title}\n{'':44s} {'median':>9s} {'least':>9s} {'most':>9s}")
    for name, times in rows.items():
        print(f"{name:44s} {statistics.median(times):8.3f}s {min(times):8.3f}s {max(times):8.3f}s")
    for name, value in figures.items():
        print(f"{name.replace('_', ' '):44s} {value:9.3g}")
    if options.out:
        settings = {name: value for name, value in vars(options).items() if name != "out"}
        machine = Stopwatch(torch.device(options.device)).record()
        machine.pop("seconds")
        write_json(options.out, {"settings": settings, "seconds": rows, **figures, "machine": machine})
