"""Sampled images: what a seed decides, and that a killed sampling goes on."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_training import drawn
from torch import Tensor

from entpruner.commands import sample
from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.evaluation.sampling import sample_images, sampled_batches
from entpruner.models.checkpoints import ModelCard, save_model
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Diffusion, Flow, ProcessSettings
from entpruner.params.compute import Compute
from entpruner.params.sampling import DiffusionSampler, FlowSampler, Sampling
from entpruner.process import make_process
from entpruner.rules.evaluate import SampleSettings

CPU = torch.device("cpu")
ARCHITECTURE = Architecture(
    depth=2, hidden_size=16, num_heads=2, patch_size=2, input_size=4, in_channels=1, num_classes=3
)
CARD = ModelCard(architecture=ARCHITECTURE, kept_blocks=(0, 1), process=Flow(), class_names=("a", "b", "c"))
SETTINGS = Sampling(
    samples=7,
    batch_size=3,
    guidance=1.5,
    diffusion=DiffusionSampler(name="ddpm", steps=2),
    flow=FlowSampler(name="sde", steps=2),
)


class Recorder:
    """A process whose samples are its noise, scaled."""

    def __init__(self, scale: float = 1) -> None:
        self.scale, self.noise = scale, list[Tensor]()

    def sample(
        self, model: Transformer, noise: Tensor, y: Tensor, sampling: Sampling, generator: torch.Generator
    ) -> Tensor:
        self.noise.append(noise)
        return noise * self.scale


def network(seed: int, blocks: int = 2) -> Transformer:
    return drawn(Transformer(ARCHITECTURE, tuple(range(blocks))), seed, std=0.2)


@pytest.mark.parametrize("process", [Diffusion(timesteps=50), Flow()], ids=["diffusion", "flow"])
def test_a_seed_decides_the_images_bit_for_bit(process: ProcessSettings) -> None:
    def sample(seed: int, elsewhere: int) -> np.ndarray:
        torch.manual_seed(elsewhere)  # nothing may come from the global generator
        images, labels = sample_images(network(0), make_process(process), SETTINGS, seed=seed, device=CPU)
        assert images.dtype == np.uint8 and images.shape == (7, 1, 4, 4)
        assert labels.dtype == np.int64 and labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
        return images

    np.testing.assert_array_equal(sample(0, elsewhere=1), sample(0, elsewhere=2))
    assert (sample(0, elsewhere=1) != sample(1, elsewhere=1)).any()


def test_arms_of_a_seed_start_from_the_same_noise() -> None:
    whole, pruned, elsewhere = Recorder(), Recorder(), Recorder()
    sample_images(network(0), whole, SETTINGS, seed=0, device=CPU)
    sample_images(network(1, blocks=1), pruned, SETTINGS, seed=0, device=CPU)
    sample_images(network(0), elsewhere, SETTINGS, seed=1, device=CPU)
    assert [len(noise) for noise in whole.noise] == [3, 3, 1]
    for a, b in zip(whole.noise, pruned.noise, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(whole.noise[0], whole.noise[1])  # nor does a batch repeat another's
    assert not torch.equal(whole.noise[0], elsewhere.noise[0])


def test_a_diverged_network_is_reported_not_stored() -> None:
    with pytest.raises(UserError, match="batch 0 is not finite"):
        sample_images(network(0), Recorder(math.nan), SETTINGS, seed=0, device=CPU)


def test_a_killed_sampling_goes_on_after_the_batches_that_it_has_finished(tmp_path: Path, monkeypatch) -> None:
    save_model(tmp_path, model := network(0), CARD)
    settings = SampleSettings(seed=0, sampling=SETTINGS, compute=Compute(device="cpu"))
    sampled = []

    def sampler(last: int) -> Callable[..., Iterator[tuple[int, np.ndarray]]]:
        def sample(*arguments: Any, **options: Any) -> Iterator[tuple[int, np.ndarray]]:
            for index, images in sampled_batches(*arguments, **options):
                if index > last:
                    raise KeyboardInterrupt
                sampled.append(index)
                yield index, images

        return sample

    for last, out in [(9, "whole"), (1, "killed"), (9, "killed")]:
        monkeypatch.setattr(sample, "sampled_batches", sampler(last))
        with suppress(KeyboardInterrupt):
            sample.run(settings, init=tmp_path, autoencoder=None, latents=None, out=tmp_path / out)
    assert sampled == [0, 1, 2, 0, 1, 2]
    images, labels = sample_images(model, make_process(CARD.process), SETTINGS, seed=0, device=CPU)
    for out in ("whole", "killed"):
        samples = Store.open(tmp_path / out, verify=True).split("samples")
        np.testing.assert_array_equal(samples.images, images)
        np.testing.assert_array_equal(samples.labels, labels)
        assert not (tmp_path / f"{out}.resume").exists()
