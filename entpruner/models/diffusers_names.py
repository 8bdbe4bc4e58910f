"""A DiT by the names of diffusers: our network as a DiTTransformer2DModel, and back.

The weights are the same numbers in other places. Two things of diffusers' class are its own:

- Every block holds a copy of the embedder of time and class, and the head reads that of block 0. So our one embedder is
  written into every block, and a network whose copies have been trained apart has no place in ours.
- The features of time are cos and sin of t · 10000^(-i/127), where DiT has 10000^(-i/128), i = 0 ... 127. No weight can
  make up for that. ``TIME_FIX`` gives a loaded network DiT's frequencies, and only then both compute the same.

diffusers' LayerNorm before the MLP has an epsilon of its own in the configuration, by default 1e-5; DiT's is 1e-6.
SiT has no pipeline in diffusers.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from entpruner.errors import UserError
from entpruner.layout import CODEC_CONFIG, CODEC_WEIGHTS, PIPELINE, PIPELINE_TRANSFORMER
from entpruner.models.checkpoints import ModelCard, official_network, plain, unnamed_classes
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import LABEL_TABLE
from entpruner.models.transformer import Transformer, sincos_position_table
from entpruner.params.backbones import Architecture, Diffusion
from entpruner.system.files import read_json, sha256_of

Weights = dict[str, Tensor]

OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
"""Layers outside the blocks, ours and diffusers'."""
EMBEDDER = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
}
"""Layers that diffusers has a copy of in every block, behind ``norm1.emb``."""
INSIDE = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
"""Layers of a block."""
ATTENTION = ("to_q", "to_k", "to_v")
"""What is one layer of ours, ``attn.qkv``, in this order of its rows."""
TABLE = "class_embedder.embedding_table.weight"

NULL_ROW = 1000
"""The row of the label table that DiTPipeline takes for "no class"."""
CLASSES = ("DiTTransformer2DModel", "Transformer2DModel")
"""The names under which diffusers has saved a DiT; the second is the one of the published pipelines."""
FIXED = {
    "norm_type": "ada_norm_zero",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": False,
}
"""What the configuration of a DiT says."""
TIME_FIX = """for block in pipeline.transformer.transformer_blocks:
    block.norm1.emb.time_proj.downscale_freq_shift = 0  # DiT's frequencies of time; diffusers has others
"""
"""Two lines for whoever loads an exported pipeline."""


def config_of(model: Transformer) -> dict[str, Any]:
    """What a DiTTransformer2DModel is made from. Raises UserError for what its class cannot be."""
    a = model.architecture
    if a.mlp_ratio != 4:
        raise UserError(
            f"an MLP of {a.mlp_ratio:g} times the width: diffusers' DiT has one of 4 times; give such a model"
        )
    if a.num_classes > NULL_ROW:
        raise UserError(
            f"{a.num_classes} classes: DiTPipeline takes row {NULL_ROW} for no class; give one of {NULL_ROW} at most"
        )
    return {
        "num_attention_heads": a.num_heads,
        "attention_head_dim": a.hidden_size // a.num_heads,
        "in_channels": a.in_channels,
        "out_channels": 2 * a.in_channels,
        "num_layers": len(model.blocks),
        "sample_size": a.input_size,
        "patch_size": a.patch_size,
        "num_embeds_ada_norm": NULL_ROW,
        "norm_eps": 1e-6,
    }


def layers(depth: int) -> Iterator[tuple[str, str]]:
    """The layers of weight and bias that both have, except for the embedder and the attention: ours, diffusers'."""
    yield from OUTSIDE.items()
    for block in range(depth):
        for ours, theirs in INSIDE.items():
            yield f"blocks.{block}.{ours}", f"transformer_blocks.{block}.{theirs}"


def to_diffusers(model: Transformer) -> Weights:
    """The weights by diffusers' names. Label tables become as long as ``NULL_ROW`` asks, by copies of "no class"."""
    ours: Weights = model.state_dict()
    found: Weights = {}
    table = ours[LABEL_TABLE]
    padding = table[-1:].expand(NULL_ROW - model.null_class, -1)
    for part in ("weight", "bias"):
        found |= {f"{theirs}.{part}": ours[f"{name}.{part}"] for name, theirs in layers(len(model.blocks))}
    for block in range(len(model.blocks)):
        place = f"transformer_blocks.{block}"
        found[f"{place}.norm1.emb.{TABLE}"] = torch.cat([table, padding])
        for part in ("weight", "bias"):
            found |= {f"{place}.norm1.emb.{name}.{part}": ours[f"{own}.{part}"] for own, name in EMBEDDER.items()}
            for name, rows in zip(ATTENTION, ours[f"blocks.{block}.attn.qkv.{part}"].chunk(3), strict=True):
                found[f"{place}.attn1.{name}.{part}"] = rows
    return found


def from_diffusers(theirs: Mapping[str, Tensor], depth: int) -> Weights:
    """DiT's weights of diffusers' ones, without the position table. Rows behind the first "no class" are left out.

    Raises UserError if the copies of the embedder differ.
    """
    first = "transformer_blocks.0.norm1.emb"
    copies = [*(f"{name}.{part}" for name in EMBEDDER.values() for part in ("weight", "bias")), TABLE]
    for block in range(1, depth):
        copy = f"transformer_blocks.{block}.norm1.emb"
        if not all(torch.equal(theirs[f"{first}.{name}"], theirs[f"{copy}.{name}"]) for name in copies):
            raise UserError(f"the embedder of block {block} differs from that of block 0, and DiT has one for all")
    table = theirs[f"{first}.{TABLE}"]
    named = (table != table[-1]).any(1).nonzero()  # the rows of classes
    found = {LABEL_TABLE: table[: max(named.flatten().tolist(), default=0) + 2]}
    for part in ("weight", "bias"):
        found |= {f"{ours}.{part}": theirs[f"{name}.{part}"] for ours, name in layers(depth)}
        found |= {f"{ours}.{part}": theirs[f"{first}.{name}.{part}"] for ours, name in EMBEDDER.items()}
        for block in range(depth):
            rows = [theirs[f"transformer_blocks.{block}.attn1.{name}.{part}"] for name in ATTENTION]
            found[f"blocks.{block}.attn.qkv.{part}"] = torch.cat(rows)
    return found


# ------------------------------------------------------------------------------------------------------------ folders


def load_diffusers(folder: Path) -> tuple[Transformer, ModelCard]:
    """The DiT of a DiTPipeline's folder, or of the folder of its transformer, on the CPU.

    Raises UserError for another class, for files that are missing or damaged, and for weights without a place in DiT.
    """
    from diffusers import DiTTransformer2DModel  # this import takes seconds, and it is optional

    place = folder / PIPELINE_TRANSFORMER if (folder / PIPELINE).exists() else folder
    try:
        config = read_json(place / CODEC_CONFIG)
        kind = config.get("_class_name")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{place / CODEC_CONFIG}: not the configuration of a DiT ({error}); get it again") from None
    other = [key for key, value in FIXED.items() if config.get(key, value) != value]
    if kind not in CLASSES or other or config.get("out_channels") != 2 * config.get("in_channels", 4):
        why = f"{other[0]} {config[other[0]]}" if kind in CLASSES and other else kind
        raise UserError(
            f"{folder}: {why}: no DiT that predicts noise and variance; images are for DiT, others take prompts"
        )
    try:
        network, loading = DiTTransformer2DModel.from_pretrained(
            place, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise UserError(f"{folder}: diffusers cannot load it ({why}); get it again, with .safetensors files") from None
    if missing := loading["missing_keys"]:  # diffusers leaves these at random
        raise UserError(f"{folder}: {missing[0]} is missing; get the files again")
    c = network.config
    try:
        weights = from_diffusers(network.state_dict(), c.num_layers)
    except UserError as error:
        raise UserError(f"{folder}: {error}; prune it as a pipeline, with a file of classes") from None
    width = c.num_attention_heads * c.attention_head_dim
    weights["pos_embed"] = sincos_position_table(width, c.sample_size // c.patch_size)[None]
    architecture = Architecture(
        depth=c.num_layers,
        hidden_size=width,
        num_heads=c.num_attention_heads,
        patch_size=c.patch_size,
        input_size=c.sample_size,
        in_channels=c.in_channels,
        num_classes=len(weights[LABEL_TABLE]) - 1,
    )
    file = place / CODEC_WEIGHTS
    model = official_network(file, weights, architecture)
    found = ModelCard(
        architecture=architecture,
        kept_blocks=model.kept_blocks,
        process=Diffusion(),
        class_names=class_names(folder, architecture.num_classes),
        source_sha256=sha256_of(file) if file.exists() else None,
    )
    return model, found


def class_names(folder: Path, count: int) -> tuple[str, ...]:
    """The names that a pipeline has for its classes; names made of numbers, where it has none or another number."""
    labels = read_json(folder / PIPELINE).get("id2label") if (folder / PIPELINE).exists() else None
    if not labels or set(labels) != {str(label) for label in range(count)}:
        return unnamed_classes(count)
    return tuple(labels[str(label)] for label in range(count))


def save_diffusers(folder: Path, model: BlockNetwork, card: ModelCard, autoencoder: Any = None) -> None:
    """Write a DiTPipeline into an existing folder; without an autoencoder, its transformer alone.

    Raises UserError for a network of another process than diffusion, and for what ``DiTTransformer2DModel`` cannot be.
    """
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    if not isinstance(card.process, Diffusion):
        raise UserError("a SiT: diffusers has no pipeline for it; give a DiT, or write a file for the official code")
    dit = plain(model)
    network = DiTTransformer2DModel(**config_of(dit)).eval()
    network.load_state_dict(to_diffusers(dit))
    if autoencoder is None:
        network.save_pretrained(folder)
        return
    scale = 1000 / card.process.timesteps
    scheduler = DDIMScheduler(card.process.timesteps, scale * 1e-4, scale * 2e-2, "linear", clip_sample=False)
    pipeline = DiTPipeline(network, autoencoder, scheduler)
    pipeline.register_to_config(id2label={str(number): name for number, name in enumerate(card.class_names)})
    pipeline.save_pretrained(folder)
