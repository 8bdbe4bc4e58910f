"""What a pruning leaves to look at: the model card, the record of how it was made, and pictures before and after."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from PIL import Image

from entpruner.layout import COMPARED_PICTURES, PRUNING
from entpruner.pipelines.capture import Arguments, Captured, noise_of
from entpruner.pipelines.needs import seconds
from entpruner.pipelines.replay import Denoiser

SHOWN = 4  # samplings in the comparison
DISTANT = 4  # calls that the distance is measured on


def before(subject: Denoiser, drop: tuple[int, ...], calls: Sequence[Captured]) -> dict[str, Any]:
    """What the record says of the whole network, and of it without blocks."""
    return {
        "class": type(subject.network).__name__,
        "blocks_removed": [list(subject.units[block]) for block in drop],
        "blocks_before": len(subject.units),
        "parameters_before": parameters(subject.network),
        "seconds_before": seconds(subject, calls[0].call.to(subject.network.device)),
        "distance_without_recovery": distance(subject, calls, drop),
    }


def after(subject: Denoiser, calls: Sequence[Captured]) -> dict[str, Any]:
    """What the record says of the pruned network."""
    return {
        "blocks_after": len(subject.units),
        "parameters_after": parameters(subject.network),
        "seconds_after": seconds(subject, calls[0].call.to(subject.network.device)),
        "distance": distance(subject, calls),
        "versions": {name: version(name) for name in ("entpruner", "diffusers", "torch")},
    }


def parameters(network: ModelMixin) -> int:
    return sum(weight.numel() for weight in network.parameters())


@torch.no_grad()
def distance(subject: Denoiser, calls: Sequence[Captured], drop: tuple[int, ...] = ()) -> float:
    """How far the outputs, without some blocks, lie from those of the whole network: mean squares, relative to them."""
    found, device = [], subject.network.device
    for call, target in ((captured.call.to(device), captured.output.to(device)) for captured in calls[:DISTANT]):
        output = subject.without(call, *drop) if drop else subject(call)
        found.append(((output - target).float().square().mean() / target.float().square().mean()).item())
    return sum(found) / len(found)


def pictures(pipeline: DiffusionPipeline, each: Arguments, seed: int) -> list[Image.Image]:
    """Images of the first samplings, or the middle frames of videos; none of a pipeline that makes neither."""
    found = []
    for sampling, arguments in enumerate(each[:SHOWN]):
        made = pipeline(**(arguments | {"output_type": "np", "generator": noise_of(seed, sampling)}))
        images = made.get("images", made.get("frames"))
        if images is None:
            return []
        array = np.asarray(images[0] if "images" in made else images[0][len(images[0]) // 2])
        if array.ndim != 3 or array.shape[-1] != 3:
            return []
        found.append(Image.fromarray((array * 255).round().clip(0, 255).astype(np.uint8)))
    return found


def compare(before: Sequence[Image.Image], after: Sequence[Image.Image], path: Path) -> None:
    """A picture of two rows: before and after, each column from the same prompt and the same noise."""
    if not before:
        return
    width, height = before[0].size
    whole = Image.new("RGB", (width * len(before), 2 * height))
    for row, images in enumerate((before, after)):
        for column, image in enumerate(images):
            whole.paste(image, (column * width, row * height))
    whole.save(path)


def card(found: dict[str, Any], final: Path, pictured: bool) -> str:
    """The model card: front matter for the hub, and a page for a reader."""
    names = ", ".join(name for unit in found["blocks_removed"] for name in unit)
    share = 1 - found["parameters_after"] / found["parameters_before"]
    steps, speed = found["recovery"]["steps"], found["seconds_before"] / found["seconds_after"]
    how = {"lora": "low-rank adapters", "full": "all weights"}[found["recovery"]["method"]]
    recovery = f"{steps} steps of distillation into {how}" if steps else "none"
    rows = {
        "blocks": ("{blocks_before}", "{blocks_after}"),
        "parameters of the transformer": ("{parameters_before:,}", f"{{parameters_after:,}} ({share:.0%} fewer)"),
        "seconds of a call, where it was pruned": ("{seconds_before:.3g}", f"{{seconds_after:.3g}} ({speed:.2f} x)"),
        "distance to the original, without recovery and with it": ("{distance_without_recovery:.3g}", "{distance:.3g}"),
    }
    table = "\n".join(f"| {what} | {before} | {after} |" for what, (before, after) in rows.items()).format(**found)
    picture = f"\n![Above the original, below this model]({COMPARED_PICTURES})\n\nPrompts and noise are the same.\n"
    return f"""---
base_model: {found["base_model"]}
library_name: diffusers
tags: [pruned, entpruner]
---

# {found["base_model"]} with {found["blocks_after"]} of {found["blocks_before"]} blocks

| | before | after |
|---|---|---|
{table}

The distance is a mean square, relative to the original's outputs, on {DISTANT} captured calls. Removed: {names}.
Chosen by {found["criterion"]} on {found["draws"]} calls. Recovery: {recovery}. `{PRUNING}` has the details.
{picture if pictured else ""}
Stock diffusers loads it:

```python
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained("{final}")
```
"""
