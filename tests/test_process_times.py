"""The times that a process draws: within its range, whatever the network, and one a stratum where asked."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entpruner.params.backbones import Diffusion, Flow, ProcessSettings
from entpruner.process import make_process
from entpruner.system.randomness import generator

PROCESSES = st.just(Flow()) | st.builds(Diffusion, timesteps=st.integers(21, 1000))


@given(PROCESSES, st.integers(1, 300), st.integers(0, 2**32), st.booleans())
@settings(max_examples=100)
def test_times_and_their_fractions_are_in_range(kind: ProcessSettings, n: int, seed: int, stratified: bool) -> None:
    process = make_process(kind)
    t = process.draw_times(n, generator(seed), stratified)
    assert t.shape == (n,)
    if isinstance(kind, Flow):
        assert t.dtype == torch.float32 and t.min() > 0 and t.max() <= 1
    else:
        assert t.dtype == torch.int64 and t.min() >= 0 and t.max() < kind.timesteps
    assert process.time_fraction(t).min() >= 0 and process.time_fraction(t).max() < 1


@pytest.mark.parametrize("kind", [Flow(), Diffusion(timesteps=1000)], ids=lambda kind: kind.kind)
def test_stratified_times_fall_in_every_stratum_in_random_order(kind: ProcessSettings) -> None:
    t = make_process(kind).draw_times(100, generator(0), stratified=True)
    strata = (t // 10 if isinstance(kind, Diffusion) else (1 - t.double()) * 100).long().tolist()
    assert sorted(strata) == list(range(100)) != strata
