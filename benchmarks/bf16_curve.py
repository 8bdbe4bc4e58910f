"""The loss of 300 steps in bfloat16 on a CPU against that in float32, and against the noise between seeds.

    python benchmarks/bf16_curve.py [--out FILE]

A small DiT learns scikit-learn's digits, once in each type with each of three seeds. Both types see the same batches.
A CPU without instructions for bfloat16 emulates it: the numbers are the same, the time is not.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from suite import CPU, DIFFUSION, DIGITS, RESULTS

from entpruner.data.store import ImageSet
from entpruner.models.transformer import Transformer
from entpruner.params.compute import Compute
from entpruner.params.training import Training
from entpruner.system.devices import cpu_has_bfloat16
from entpruner.system.files import write_json
from entpruner.system.randomness import generator
from entpruner.system.recording import Stopwatch
from entpruner.training.loop import train
from entpruner.training.state import TrainState

SHAPE = DIGITS.model_copy(update={"depth": 4})
SETTINGS = Training(steps=300, batch_size=32, learning_rate=1e-3, log_every=50)
SEEDS = (0, 1, 2)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    pixels, labels = load_digits(return_X_y=True)
    images = ImageSet(np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64), 10)
    curves = {
        name: [curve(images, seed, half) for seed in SEEDS] for name, half in (("float32", False), ("bf16", True))
    }
    ends = {name: [one[-1] for one in found] for name, found in curves.items()}
    noise = statistics.stdev(ends["float32"])
    largest = max(
        abs(a - b) for one, other in zip(*curves.values(), strict=True) for a, b in zip(one, other, strict=True)
    )
    record = Stopwatch(CPU).record()
    machine = {key: record[key] for key in ("device", "python", "torch")} | {"native": cpu_has_bfloat16()}
    content = {"machine": machine, "curves": curves, "largest_difference": largest, "noise_between_seeds": noise}
    write_json(given.out or RESULTS / f"bf16-curve-{record['device'].replace(' ', '-')}.json", content)
    print(f"loss of steps 251 to 300: float32 {ends['float32']}, bfloat16 {ends['bf16']}")
    print(f"largest difference of two means of 50 steps {largest:.2g}, standard deviation between seeds {noise:.2g}")


def curve(images: ImageSet, seed: int, half: bool) -> list[float]:
    """The mean losses of every 50 steps."""
    state = TrainState.start(Transformer(SHAPE).initialize(generator(seed, "bf16", "weights")))
    compute, steps = Compute(device="cpu", cpu_bf16=half), SETTINGS.steps
    points = train(state, DIFFUSION, images, SETTINGS, start=0, stop=steps, seed=seed, artefact="bf16", compute=compute)
    return [float(point["loss"]) for point in points]


if __name__ == "__main__":
    main()
