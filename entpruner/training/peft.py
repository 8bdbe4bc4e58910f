"""Which weights a fine-tuning trains: the methods of Table 2, on a network of the official layout.

They are written here and not taken from the library ``peft``, which knows no DiffFit, draws from a global generator and
saves adapters in a layout of its own, while these must resume exactly and end as weights under the official names.

Whatever the method, the label table is trained: its rows are new where the classes are. DiT's and SiT's norms have no
weights, so that "biases and norms" are the biases. The moving average is that of what is trained: of LoRA's factors,
not of their product.
"""

import torch
from torch import nn

from entpruner.errors import UserError
from entpruner.models.adapters import add_adapters, add_scales, merge_scales
from entpruner.models.lora import LoraLinear, add_lora
from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer
from entpruner.params.training import Finetuning


def prepare(model: BlockNetwork, settings: Finetuning, generator: torch.Generator) -> None:
    """Add what the method adds and leave trainable what it trains, in place. The network computes what it did.

    - ``full``: every weight.
    - ``bitfit`` (Zaken et al. 2022): all biases.
    - ``lora`` (Hu et al. 2022): updates of the blocks' linear layers, nothing beside them.
    - ``difffit`` (Xie et al. 2023): all biases, and a scale behind attention and MLP of every block.
    - ``adapters`` (Houlsby et al. 2019): a bottleneck behind attention and MLP of every block.

    Raises UserError for a method that a U-Net is given and that is not ``full``.
    """
    if settings.method == "full":
        return
    if not isinstance(model, Transformer):
        raise UserError(f"finetune.method: got {settings.method}; allowed for a U-Net: full")
    model.requires_grad_(False)
    model.y_embedder.requires_grad_(True)
    if settings.method in ("bitfit", "difffit"):
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.requires_grad_(True)
    match settings.method:
        case "lora":
            add_lora(model.blocks, settings.lora, generator)
        case "difffit":
            add_scales(model)
        case "adapters":
            for adapter in add_adapters(model, settings.adapter_width):
                adapter.initialize(generator)


def merge(model: BlockNetwork, settings: Finetuning) -> None:
    """Multiply out what ``prepare`` added beside or behind linear layers, in place; adapters cannot be and stay.

    For LoRA and DiffFit the network has the official layout again and computes what it did, up to rounding.
    """
    match settings.method:
        case "lora":
            _merge_lora(model)
        case "difffit":
            merge_scales(model)


def trained_parameters(model: nn.Module) -> int:
    """How many numbers a training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _merge_lora(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, LoraLinear):
            setattr(module, name, child.merged())
        else:
            _merge_lora(child)
