"""What scoring and recovery take at scale: measured for 2.2 billion parameters, counted for larger transformers.

    python benchmarks/scale.py [--draws 4] [--side 16] [--tflops 400]

CED is computed for Stable Diffusion 3.5 medium's configuration with random weights in bfloat16, on the CPU, with inputs
drawn at random: neither time nor memory depends on the values. The peak of the resident memory, beyond what the
libraries took before, is compared with what ``entpruner prune`` foretells. Flux, Qwen-Image and Wan 14B are built
without memory for their weights, and PyTorch counts the operations of a pass. The command writes
benchmarks/results/scale-<processor>.json and docs/scale.md.
"""

import argparse
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import (
    FluxTransformer2DModel,
    ModelMixin,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    WanTransformer3DModel,
)
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from entpruner.params.compute import Compute
from entpruner.params.pipelines import OwnPipeline, Recovery
from entpruner.pipelines.capture import Captured, CapturedContext
from entpruner.pipelines.needs import Needs, needed, seconds
from entpruner.pipelines.replay import Call, Denoiser
from entpruner.scores import score
from entpruner.system.files import write_json
from entpruner.system.recording import Stopwatch

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
RATIO = 0.25
SD35_MEDIUM = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
    "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}  # fmt: skip
TEXT = 64  # tokens of the measured calls
HEAD = """# At scale

`python benchmarks/scale.py` writes this page. No published weights were loaded.

## Measured: {billions:.2f} billion parameters on a CPU

{machine}, {cores} cores, {ram:.0f} GB of memory.
Stable Diffusion 3.5 medium's configuration with random weights in bfloat16, latents of {side} by {side}, {text} tokens
of text, CED of {draws} draws.

| what | measured | foretold by `prune` |
|---|---|---|
| peak memory beyond the libraries' | {peak:.2f} GB | {memory:.2f} GB |
| a call | {call:.3g} s | |
| CED of {blocks} blocks | {ced:.3g} s | {scoring:.3g} s |

Other programs had precedence on the CPU at that time, with a load of {load:.1f}, so the seconds are no measure of the
processor. What is foretold leaves out the inside of a block.

## Counted: larger ones

PyTorch counts the operations of one call without weights in memory. Hours are those at {tflops:g} TFLOP/s, about 40 %
of an H100's peak in bfloat16, which nobody measured here. Scoring: CED of {scored} draws. Recovery: {steps} steps of
{batch} calls, a quarter of the blocks gone, gradient checkpointing. Memory is that of weights, of what blocks hand on,
and of what AdamW trains.

| network | parameters | a call | scoring | memory | recovery by adapters | memory | by all weights | memory |
|---|---|---|---|---|---|---|---|---|
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--draws", type=int, default=4)
    options.add_argument("--side", type=int, default=16, help="of the latent; default: %(default)s")
    options.add_argument("--tflops", type=float, default=400)
    given = options.parse_args()
    diffusers.utils.logging.set_verbosity_error()
    record = Stopwatch(CPU).record()
    content: dict[str, Any] = {"machine": {key: record[key] for key in ("device", "python", "torch")}}
    content |= {"measured": measured(given.draws, given.side), "tflops": given.tflops}
    content["counted"] = {name: counted(*make(), given.tflops) for name, make in LARGER.items()}
    name = re.sub(r"\W+", "-", record["device"]).strip("-")
    write_json(ROOT / f"benchmarks/results/scale-{name}.json", content)
    (ROOT / "docs/scale.md").write_text(page(content))


# ------------------------------------------------------------------------------------------------------------ measured


def measured(draws: int, side: int) -> dict[str, Any]:
    """Time and peak memory of CED, and what was foretold."""
    before = peak()
    subject = Denoiser(filled(SD3Transformer2DModel, SD35_MEDIUM))
    calls = [Captured(call, torch.zeros(1), sampling, 0.5) for sampling, call in enumerate(drawn(draws, side))]
    settings = OwnPipeline().scoring.model_copy(update={"draws": draws})
    call = seconds(subject, calls[0].call)
    how = OwnPipeline(scoring=settings, recovery=Recovery(steps=0))
    foretold = needed(subject, calls[0].call, call, RATIO, how)
    context = CapturedContext(model=subject, calls=calls, settings=settings, seed=0, artefact="scores", device=CPU)
    start = time.perf_counter()
    score("ced", context)
    return {
        "ced": time.perf_counter() - start,
        "peak": peak() - before,
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "ram": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "billions": sum(weight.numel() for weight in subject.network.parameters()) / 1e9,
        "blocks": len(subject.units),
        "side": side,
        "draws": draws,
        **foretold._asdict(),
    }


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def filled(kind: type[ModelMixin], config: dict[str, Any]) -> ModelMixin:
    """A network in bfloat16 with the same small random numbers in all weights: drawing billions takes long."""
    network = unfilled(kind, config).to_empty(device=CPU)
    tile = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            flat = tensor.view(-1)
            for start in range(0, len(flat), len(tile)):
                flat[start : start + len(tile)] = tile[: len(flat) - start]
    return network


def unfilled(kind: type[ModelMixin], config: dict[str, Any]) -> ModelMixin:
    with torch.device("meta"):
        return kind(**config).to(torch.bfloat16).eval()


def drawn(draws: int, side: int) -> list[Call]:
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).bfloat16()

    return [
        Call((normal(1, 16, side, side),), {"encoder_hidden_states": normal(1, TEXT, 4096),
             "pooled_projections": normal(1, 2048), "timestep": torch.tensor([500.0])})
        for _ in range(draws)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- counted


def nothing(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def flux() -> tuple[ModelMixin, dict[str, Any]]:
    inputs = {"hidden_states": nothing(1, 4096, 64), "encoder_hidden_states": nothing(1, 512, 4096)}
    inputs |= {"pooled_projections": nothing(1, 768), "timestep": nothing(1), "guidance": nothing(1)}
    inputs |= {"img_ids": nothing(4096, 3), "txt_ids": nothing(512, 3)}
    return unfilled(FluxTransformer2DModel, {"guidance_embeds": True}), inputs


def qwen_image() -> tuple[ModelMixin, dict[str, Any]]:
    inputs = {"hidden_states": nothing(1, 4096, 64), "encoder_hidden_states": nothing(1, 512, 3584)}
    return unfilled(QwenImageTransformer2DModel, {}), inputs | {"timestep": nothing(1), "img_shapes": [(1, 64, 64)]}


def wan() -> tuple[ModelMixin, dict[str, Any]]:
    inputs = {"hidden_states": nothing(1, 16, 21, 60, 104), "encoder_hidden_states": nothing(1, 512, 4096)}
    return unfilled(WanTransformer3DModel, {}), inputs | {"timestep": nothing(1)}


LARGER: dict[str, Callable[[], tuple[ModelMixin, dict[str, Any]]]] = {
    "FLUX.1 dev, 1024 px": flux,
    "Qwen-Image, 1024 px": qwen_image,
    "Wan 2.1 14B, 480 x 832, 81 frames": wan,
}


def counted(network: ModelMixin, inputs: dict[str, Any], tflops: float) -> dict[str, Any]:
    """The operations of a call, and what both recoveries need at a speed."""
    subject, call = Denoiser(network), Call((), inputs)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        subject(call)
    flops = counter.get_total_flops()
    found: dict[str, Any] = {"parameters": sum(weight.numel() for weight in network.parameters()), "flops": flops}
    for method in ("lora", "full"):
        how = OwnPipeline(recovery=Recovery(method=method), compute=Compute(gradient_checkpointing=True))
        found[method] = needed(subject, call, flops / (1e12 * tflops), RATIO, how)._asdict()
    return found


def row(name: str, found: dict[str, Any]) -> str:
    lora, full = (Needs(**found[method]) for method in ("lora", "full"))
    cells = [name, f"{found['parameters'] / 1e9:.1f} B", f"{found['flops'] / 1e12:.0f} TFLOP"]
    cells += [hours(lora.scoring), gigabytes(lora.memory)]
    for needs in (lora, full):
        cells += [hours(needs.recovery), gigabytes(needs.training)]
    return f"| {' | '.join(cells)} |"


def hours(time: float) -> str:
    return f"{time / 3600:.2g} h"


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.0f} GB"


def page(content: dict[str, Any]) -> str:
    here, how = content["measured"], OwnPipeline()
    machine = "{device}, torch {torch}, Python {python}".format(**content["machine"])
    known = here | {key: here[key] / 1e9 for key in ("peak", "memory", "ram")}
    counts = {"scored": how.scoring.draws, "steps": how.recovery.steps, "batch": how.recovery.batch_size}
    head = HEAD.format(machine=machine, text=TEXT, tflops=content["tflops"], **counts, **known)
    return head + "\n".join(row(name, found) for name, found in content["counted"].items()) + "\n"


if __name__ == "__main__":
    main()
