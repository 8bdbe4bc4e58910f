"""Which weights a fine-tuning trains: the methods of Table 2, on a network of the official layout.

The library ``peft`` is not used: it has no DiffFit, draws from a global generator and has its own format of files, but
these methods must resume exactly and end as weights with the official names.

Every method trains the label table, because it has new rows for new classes. The norms of DiT and SiT have no weights,
so the "biases and norms" of the papers are the biases. The moving average is that of the trained parameters, for
example of LoRA's two factors and not of their product.
"""

import torch
from torch import nn

from entpruner.errors import UserError
from entpruner.models.adapters import add_adapters, add_scales, merge_scales
from entpruner.models.lora import add_lora, merge_lora
from entpruner.models.network import BlockNetwork
from entpruner.models.transformer import Transformer
from entpruner.params.training import Finetuning


def prepare(model: BlockNetwork, settings: Finetuning, generator: torch.Generator) -> None:
    """Add the parameters of the method, and freeze all that it does not train, in place. The output stays the same.

    - ``full`` trains every weight.
    - ``bitfit`` (Zaken et al. 2022) trains all biases.
    - ``lora`` (Hu et al. 2022) trains updates of the blocks' linear layers alone.
    - ``difffit`` (Xie et al. 2023) trains all biases, and a scale behind attention and MLP of every block.
    - ``adapters`` (Houlsby et al. 2019) trains a bottleneck behind attention and MLP of every block.

    Raises UserError for another network than DiT and SiT with another method than ``full``.
    """
    if settings.method == "full":
        return
    if not isinstance(model, Transformer):
        raise UserError(f"finetune.method: got {settings.method}; allowed for this network: full")
    model.requires_grad_(False)
    model.y_embedder.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if settings.method in ("bitfit", "difffit") and name.endswith(".bias"):
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
    """Merge what LoRA and DiffFit added into the weights, in place. The output stays the same, up to rounding.

    Then the network has the official layout again. Adapters cannot be merged and stay.
    """
    if settings.method == "lora":
        merge_lora(model)
    elif settings.method == "difffit":
        merge_scales(model)


def trained_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
