"""What commands read that go on from a trained model."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from entpruner.data.store import Store
from entpruner.errors import UserError
from entpruner.models.checkpoints import ModelCard, load_model
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import replace_label_table


def model_for(data: Store, init: Path) -> tuple[BlockNetwork, ModelCard]:
    """The model in ``init`` and its card. Raises UserError if its classes are not those of the data."""

    def listed(names: Sequence[str]) -> str:
        return textwrap.shorten(", ".join(names), 60, placeholder=" ...")

    model, card = load_model(init)
    if card.class_names != data.class_names:
        raise UserError(
            f"{init}: a model of the classes {listed(card.class_names)}, but {data.path} has "
            f"{listed(data.class_names)}; adapt the model to these data first"
        )
    return model, card


def moved_model(data: Store, init: Path, random: torch.Generator) -> tuple[BlockNetwork, ModelCard]:
    """The model in ``init`` with a new label table for the classes of the data, and its card."""
    model, card = load_model(init)
    classes = tuple(data.class_names)
    model = replace_label_table(model, len(classes), random)
    return model, card.model_copy(update={"architecture": model.architecture, "class_names": classes})
