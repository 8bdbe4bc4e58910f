"""Every class of transformer that can be pruned: small ones are scored, pruned, saved and loaded."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import yaml
from diffusers import ModelMixin
from torch import Tensor

from entpruner.pipelines.blocks import units
from entpruner.pipelines.replay import Call, Denoiser, first_tensor
from entpruner.pipelines.surgery import remove

CLASSES: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("transformers.yaml").read_text())


def value(form: Any, random: torch.Generator) -> Any:
    """An argument, of its form in transformers.yaml."""
    if isinstance(form, list):
        return torch.randn(form, generator=random)
    ((kind, given),) = form.items()
    match kind:
        case "value":
            return given
        case "tensor" | "index":
            return torch.tensor(given)
        case "ones" | "zeros":
            return getattr(torch, kind)(given)
        case "ints" | "bools" | "unset":
            return torch.full(given, kind != "unset", dtype=torch.int64 if kind == "ints" else torch.bool)
        case "full":
            return torch.full(given, 500.0)
        case "range":
            return torch.arange(given[-1]).expand(given)
        case "ranges":
            return [torch.arange(n) for n in given]
        case "grid":  # places of T tokens on a line: (..., T, axes)
            return torch.arange(given[-2])[:, None].expand(given).float()
        case "grid3":
            return torch.arange(given[-2])[:, None].expand(given)
        case "text_first":  # Ideogram's marks of text and image tokens
            return torch.tensor([[3] * given[0] + [2] * given[1]])
        case "list":
            return [torch.randn(shape, generator=random) for shape in given]
        case "pair":
            return tuple(torch.randn(given, generator=random) for _ in range(2))
        case "rotary":
            return torch.polar(torch.ones(given), torch.randn(given, generator=random))
    raise ValueError(kind)


def small(name: str) -> tuple[ModelMixin, Call]:
    """A network of the class with random weights everywhere, so that no block is the identity, and a call of it."""
    described = CLASSES[name]
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(diffusers.models, name, None) or getattr(diffusers, name)
        model = model(**described["config"]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=random)
    inputs = described.get("inputs") or CLASSES[described["same"]]["inputs"]
    return model, Call((), {key: value(form, random) for key, form in inputs.items()})


@torch.no_grad()
def output(model: ModelMixin, call: Call) -> Tensor:
    return first_tensor(model(*call.args, **call.kwargs))


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_scored_pruned_saved_and_loaded(name: str, tmp_path: Path) -> None:
    model, call = small(name)
    if type(model)._keep_in_fp32_modules and find_spec("accelerate") is None:
        pytest.skip("diffusers loads this class with accelerate alone: pip install entpruner[diffusers]")
    subject = Denoiser(model)
    outputs = dict(subject.removals(call))
    whole = outputs.pop(None)
    assert torch.equal(whole, output(model, call)) and whole.isfinite().all()
    assert len(outputs) == len(units(model)) >= 2
    for number, without in outputs.items():
        assert not torch.equal(without, whole), f"block {number} does nothing"
    assert len(list(subject.visits(call))) == len(outputs)

    last = len(outputs) - 1
    expected = subject.without(call, last)
    assert torch.equal(expected, outputs[last])
    remove(model, [subject.units[last]])
    assert torch.equal(output(model, call), expected)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    torch.testing.assert_close(output(loaded, call), expected, rtol=1e-4, atol=1e-5)
