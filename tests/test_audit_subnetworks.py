"""Sub-networks on the bench: what is common to them, what a repeat changes, and which blocks they drop."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from scoring_context import context

from entpruner.audit.subnetworks import (
    Bench,
    mean_loss,
    measured,
    nested_masks,
    random_masks,
    short_recovery,
)
from entpruner.evaluation.classifier import Classifier, initialize
from entpruner.evaluation.extractors import classifier_net
from entpruner.models.surgery import drop_blocks
from entpruner.params.compute import Compute
from entpruner.params.training import Finetuning, Training
from entpruner.scores import score
from entpruner.system.randomness import generator


@pytest.fixture(scope="module")
def bench() -> Bench:
    setting = context()
    setting = replace(setting, sampling=setting.sampling.model_copy(update={"samples": 12, "batch_size": 12}))
    classifier = Classifier(in_channels=1, num_classes=3, width=4, features=6)
    initialize(classifier, generator(0))
    net = classifier_net("classifier", classifier, setting.device, 64)
    recovery = Training(steps=3, batch_size=8, learning_rate=1e-3)
    return Bench(setting, net, net.features(setting.images.images), recovery, Compute(device="cpu"))


def test_the_rise_of_the_loss_is_the_sensitivity_of_the_block(bench: Bench) -> None:
    whole = mean_loss(bench.context.model, bench.context)
    sensitivity = score("sensitivity", replace(bench.context, artefact="scores/test/loss"))  # on the loss's own draws
    for block, rise in zip(range(4), sensitivity.value, strict=True):
        without = mean_loss(drop_blocks(bench.context.model, [block]), bench.context)
        assert without - whole == pytest.approx(rise, abs=1e-6)


def test_a_sub_network_is_the_same_whenever_it_is_measured_and_the_start_stays_as_it_was(bench: Bench) -> None:
    start = {name: tensor.clone() for name, tensor in bench.context.model.state_dict().items()}
    first = measured(bench, (3, 1))
    measured(bench, (0,), repeat=1)
    again = measured(bench, (1, 3))
    assert first.dropped == again.dropped == (1, 3)
    assert first.model_dump(exclude={"seconds"}) == again.model_dump(exclude={"seconds"})
    assert all(torch.equal(start[name], tensor) for name, tensor in bench.context.model.state_dict().items())


def test_a_repeat_recovers_and_samples_anew_but_sees_the_same_draws(bench: Bench) -> None:
    first, second = measured(bench, (2,)), measured(bench, (2,), repeat=1)
    assert first.loss == second.loss
    assert first.distance != second.distance
    assert first.distance_before != second.distance_before
    assert measured(bench, (2,), before=False).distance_before is None


def test_samples_that_are_latents_are_decoded_before_the_feature_net_sees_them(bench: Bench) -> None:
    shown: list[torch.Size] = []

    def decode(latents: torch.Tensor) -> torch.Tensor:
        shown.append(latents.shape)
        return latents.clamp(-1, 1).repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)

    decoded = measured(replace(bench, decode=decode), (2,))
    assert shown == [(12, 1, 8, 8)] * 2  # before recovery and after it
    plain = measured(bench, (2,))
    assert decoded.loss == plain.loss
    assert decoded.distance != plain.distance


def test_random_masks_are_different_and_all_there_are_where_these_are_fewer_and_nested_ones_contain_each_other() -> (
    None
):
    masks = random_masks((0, 2, 5, 7, 9, 11), 3, 12, generator(1))
    assert len(set(masks)) == 12
    assert all(len(set(mask)) == 3 and list(mask) == sorted(mask) for mask in masks)
    assert masks == random_masks((0, 2, 5, 7, 9, 11), 3, 12, generator(1))
    assert len(set(random_masks(range(4), 2, 30, generator(1)))) == math.comb(4, 2)
    chains = nested_masks(range(8), (5, 2, 7), 4, generator(2))
    assert [[len(mask) for mask in chain] for chain in chains] == [[2, 5, 7]] * 4
    assert all(set(smaller) < set(larger) for chain in chains for smaller, larger in pairwise(chain))


def test_a_short_recovery_is_the_fine_tuning_shrunk() -> None:
    finetune = Finetuning(steps=300, warmup_steps=20, decay="cosine", batch_size=32, learning_rate=2e-3, method="lora")
    short = short_recovery(finetune, 60)
    assert type(short) is Training
    assert (short.steps, short.warmup_steps, short.decay, short.batch_size) == (60, 4, "cosine", 32)
