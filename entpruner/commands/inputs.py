"""The models that commands begin with, matched to the classes of their data."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch

from entpruner.data.latent_store import AnyStore
from entpruner.errors import UserError
from entpruner.models.checkpoints import ModelCard, load_model, unnamed_classes
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import first_label_rows, replace_label_table
from entpruner.params.training import LabelTable


def model_for(data: AnyStore, init: Path) -> tuple[BlockNetwork, ModelCard]:
    """The model in ``init`` and its card. Raises UserError if its classes are not those of the data.

    The classes of an imported model have no names. If they are as many as those of the data, they get their names.
    """

    def listed(names: Sequence[str]) -> str:
        return textwrap.shorten(", ".join(names), 60, placeholder=" ...")

    model, card = load_model(init)
    if card.class_names == unnamed_classes(data.num_classes):
        card = card.model_copy(update={"class_names": data.class_names})
    if card.class_names != data.class_names:
        raise UserError(
            f"{init}: a model of the classes {listed(card.class_names)}, but {data.path} has "
            f"{listed(data.class_names)}; adapt the model to these data first"
        )
    return model, card


def moved_model(
    data: AnyStore, init: Path, random: torch.Generator, label_table: LabelTable
) -> tuple[BlockNetwork, ModelCard]:
    """The model in ``init`` with a label table for the classes of the data, and its card.

    ``label_table`` says whether the table is new or has the first rows of the old one. Raises UserError if these are
    too few.
    """
    model, card = load_model(init)
    classes = tuple(data.class_names)
    if label_table == "new":
        model = replace_label_table(model, len(classes), random)
    else:
        model = first_label_rows(model, len(classes))
    model.name_classes(classes)
    return model, card.model_copy(update={"architecture": model.architecture, "class_names": classes})
