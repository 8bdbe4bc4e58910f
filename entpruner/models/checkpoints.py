"""Networks on disk: our folders of model.safetensors and model.json, and official files. No code in a file is run."""

import argparse
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from entpruner.errors import UserError
from entpruner.layout import CARD, WEIGHTS
from entpruner.models.adapters import add_adapters
from entpruner.models.arithmetic import parameters_of
from entpruner.models.network import BlockNetwork
from entpruner.models.stock_network import StockTransformer
from entpruner.models.surgery import LABEL_TABLE
from entpruner.models.transformer import Attention, Transformer
from entpruner.models.unet import UNet
from entpruner.params.backbones import SIZES, Architecture, ProcessSettings, Shape, TrainedWeights, UNetArchitecture
from entpruner.params.base import Frozen
from entpruner.params.stock import StockArchitecture
from entpruner.system.files import intact, read_json, whole_file, write_json

SHAPED_BY = {  # the keys of an architecture that decide about the shapes of weights
    Architecture: ("hidden_size", "patch_size", "input_size"),
    UNetArchitecture: ("channels", "multipliers"),
    StockArchitecture: ("transformer", "config", "words"),
}
PARTS = ("ema", "model")  # a training checkpoint has weights under one of these keys, or under both
POSITION_TOLERANCE = 0.01  # a moving average over millions of steps changes a constant by rounding
MOST_TENSORS = 20_000  # in a file; DiT-XL/2's training checkpoint, with two moments a weight, has about 1,500
UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError)


class ModelCard(Frozen):
    """The content of ``model.json``, which says what network the weights beside it belong to."""

    architecture: Shape
    kept_blocks: tuple[int, ...] = Field(max_length=1000)
    """The blocks that the network still has, in the numbering of the unpruned one of ``architecture.depth`` blocks."""
    process: ProcessSettings
    class_names: tuple[str, ...]
    """The name of each class. The null class comes after them and has no name."""
    source_sha256: str | None = None
    """Checksum of the official file that the weights came from, or None for weights that were trained here."""
    adapter_width: int | None = Field(None, gt=0)
    """Hidden width of the adapters behind attention and MLP, or None without adapters. Only transformers have them."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        blocks, depth = self.kept_blocks, self.architecture.depth
        if not blocks or sorted(set(blocks)) != list(blocks) or blocks[0] < 0 or blocks[-1] >= depth:
            raise ValueError(f"kept_blocks {blocks} must be rising numbers from 0 to {depth - 1}")
        if len(self.class_names) != self.architecture.num_classes:
            raise ValueError(f"{len(self.class_names)} class_names for {self.architecture.num_classes} classes")
        if self.adapter_width is not None and not isinstance(self.architecture, Architecture):
            raise ValueError("adapter_width is for transformers alone")
        return self


def build(architecture: Shape, kept_blocks: tuple[int, ...] | None = None) -> BlockNetwork:
    """The network of an architecture. Its weights are not initialised yet."""
    if isinstance(architecture, Architecture):
        return Transformer(architecture, kept_blocks)
    if isinstance(architecture, StockArchitecture):
        return StockTransformer(architecture, kept_blocks)
    return UNet(architecture, kept_blocks)


def save_model(folder: Path, model: BlockNetwork, card: ModelCard) -> None:
    """Write the weights and their card into an existing folder. Equal weights give equal bytes."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    write_json(folder / CARD, card.model_dump(mode="json"))


def load_model(folder: Path) -> tuple[BlockNetwork, ModelCard]:
    """The network and the card of a folder that ``save_model`` wrote, on the CPU.

    Raises UserError for a missing or damaged file, and for weights that do not fit the card.
    """
    path = folder / CARD
    try:
        card = ModelCard.model_validate(read_json(path))
    except UNREADABLE:
        raise UserError(f"{path}: no such file, or not readable; give the folder of a trained model") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the card"
        raise UserError(f"{path}: {where}: {first['msg']}; make the model again") from None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); make the model again") from None
    _require_weights_for(card, folder / WEIGHTS)
    model = build(card.architecture, card.kept_blocks)
    if card.adapter_width is not None and isinstance(model, Transformer):
        add_adapters(model, card.adapter_width)
    _fill(model, read_weights(intact(folder / WEIGHTS)), folder / WEIGHTS)
    return model, card


def _require_weights_for(card: ModelCard, file: Path) -> None:
    """Raise UserError if the file is far too small for the network of the card, before this is built in memory."""
    blocks, width = len(card.kept_blocks), card.adapter_width or 0
    adapters = 4 * blocks * width * card.architecture.hidden_size if isinstance(card.architecture, Architecture) else 0
    _require_room(file, parameters_of(card.architecture, card.kept_blocks) + adapters)


def _require_room(file: Path, parameters: int) -> None:
    size = file.stat().st_size if file.is_file() else parameters  # whoever reads the file says that it is not there
    if parameters > size:  # a weight has a byte or more
        raise UserError(
            f"{file}: it has {size:,} bytes, and a network of this architecture {parameters:,} weights; get the file "
            "again, or check the architecture"
        )


def load_official(path: Path, architecture: Architecture) -> Transformer:
    """The network of an official DiT or SiT file, on the CPU. Raises UserError as its two steps do."""
    return official_network(path, read_weights(path), architecture)


def official_network(path: Path, weights: Mapping[str, Tensor], architecture: Architecture) -> Transformer:
    """The network of weights that were read from ``path``. Every key and shape must be that of DiT and SiT."""
    _require_room(path, parameters_of(architecture, range(architecture.depth)))
    model = Transformer(architecture)
    expected = model.pos_embed.detach().clone()
    _fill(model, weights, path)
    apart = float((model.pos_embed - expected).abs().max())
    if not apart <= POSITION_TOLERANCE:
        raise UserError(
            f"{path}: pos_embed is up to {apart:.2g} away from DiT's fixed position table; "
            "the file is damaged or of another architecture"
        )
    return model


def official_architecture(path: Path, weights: Mapping[str, Tensor], num_heads: int | None = None) -> Architecture:
    """The architecture of weights that were read from ``path``, by their shapes.

    Shapes do not show the number of heads. If it is not given, it is that of the published network of this width.
    Raises UserError if there is none, and for weights that are not those of a DiT or SiT.
    """
    ranks = {"pos_embed": 3, "x_embedder.proj.weight": 4, LABEL_TABLE: 2, "blocks.0.mlp.fc1.weight": 2}
    for key, rank in ranks.items():
        if key not in weights or weights[key].dim() != rank or 0 in weights[key].shape:
            raise UserError(f"{path}: {key} is missing or no {rank}-D tensor; give a file of DiT's or SiT's key names")
    (_, tokens, _), (hidden, channels, patch, _), (rows, _), (width, _) = (weights[key].shape for key in ranks)
    published = {size: heads for _, size, heads in SIZES.values()}
    if num_heads is None and hidden not in published:
        raise UserError(f"{path}: hidden size {hidden} is none of DiT's sizes; give the number of heads (--heads)")
    try:
        return Architecture(
            depth=len({key.split(".")[1] for key in weights if key.startswith("blocks.")}),
            hidden_size=hidden,
            num_heads=published[hidden] if num_heads is None else num_heads,
            patch_size=patch,
            input_size=math.isqrt(tokens) * patch,
            in_channels=channels,
            num_classes=rows - 1,
            mlp_ratio=width / hidden,
        )
    except ValidationError as error:
        first = error.errors()[0]
        what = ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])
        raise UserError(f"{path}: {what}; check the file and the number of heads") from None


def official_card(network: Transformer, process: ProcessSettings, sha256: str) -> ModelCard:
    """The card of the network of an official file with this checksum. Its classes have no names."""
    return ModelCard(
        architecture=network.architecture,
        kept_blocks=network.kept_blocks,
        process=process,
        class_names=unnamed_classes(network.architecture.num_classes),
        source_sha256=sha256,
    )


def export_official(path: Path, model: BlockNetwork) -> None:
    """Write the weights as a state dict with the official names, in the format of the suffix of ``path``.

    Blocks are numbered from 0, so the official code reads the file with its ``depth`` set to the number of blocks.
    Raises UserError for another suffix, and for a network that the official code has no names for.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in plain(model).state_dict().items()}
    if path.suffix not in (".pt", ".pth", ".safetensors"):
        raise UserError(f"{path}: an official file is a .pt, .pth or .safetensors; give one of these names")
    with whole_file(path) as partial:
        save_file(weights, partial) if path.suffix == ".safetensors" else torch.save(weights, partial)


def plain(model: BlockNetwork) -> Transformer:
    """The same network, if it is a transformer without adapters. Raises UserError otherwise."""
    if not isinstance(model, Transformer):
        what = "a transformer of diffusers" if isinstance(model, StockTransformer) else "a U-Net"
        raise UserError(f"the model is {what}; give a DiT or SiT")
    if not all(isinstance(block.attn, Attention) for block in model.blocks):
        raise UserError("the model has adapters, which DiT and SiT do not have; give a model without adapters")
    return model


def unnamed_classes(count: int) -> tuple[str, ...]:
    """Names for the classes of an official file, which does not hold their names."""
    return tuple(f"class {label}" for label in range(count))


def read_weights(path: Path, which: TrainedWeights | None = None) -> dict[str, Tensor]:
    """Weights by name, on the CPU, from a .safetensors or torch file. Code in the file is refused and not run.

    A training checkpoint has several parts, and ``which`` is read, or by default ``ema``, or else ``model``. Raises
    UserError for a file that is missing, damaged or unsafe, that lacks this part, or that holds no state dict.
    """
    try:
        if path.suffix == ".safetensors":
            _require_few(path, len(safe_open(path, framework="pt").keys()))  # type: ignore[no-untyped-call]
            return load_file(path)
        mapped = _require_plain_zip(path)  # a mapped file's optimizer moments, which are not needed, are never read
        # The official training checkpoints hold their arguments. The errors below replace the warnings of torch.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except UserError:
        raise
    except UNREADABLE:
        raise UserError(f"{path}: no such file, or not readable; check the path") from None
    except SafetensorError as error:
        raise UserError(f"{path}: truncated or not safetensors ({error}); get the file again") from None
    except Exception:  # torch's reader raises errors of any kind on broken bytes
        raise UserError(
            f"{path}: damaged, or a pickle with code, which is not run; get it again, or as safetensors"
        ) from None
    weights = _state_dict(path, content, which)
    _require_own_numbers(path, weights)
    return weights


def _require_few(path: Path, tensors: int) -> None:
    if tensors > MOST_TENSORS:
        raise UserError(f"{path}: {tensors:,} tensors; allowed: at most {MOST_TENSORS:,}; it is no DiT or SiT")


def _require_plain_zip(path: Path) -> bool:
    """Whether a torch file is a zip archive. Raises UserError for one that torch would not read as what it holds."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    _require_few(path, len(members))
    if packed := [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]:
        raise UserError(f"{path}: {packed[0]!r} in it is compressed, which torch.save never does; save the file again")
    return True


def _require_own_numbers(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise UserError unless each tensor is dense, and all of them together are not larger than the file."""
    for key, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
            raise UserError(f"{path}: {key!r:.80} is no dense tensor; save the weights as float32")
    held, size = sum(tensor.numel() * tensor.element_size() for tensor in weights.values()), path.stat().st_size
    if held > size:  # views of a few numbers can have any shape
        raise UserError(f"{path}: its tensors have {held:,} bytes, the file {size:,}; save clones of the weights")


def _state_dict(path: Path, content: Any, which: TrainedWeights | None) -> dict[str, Tensor]:
    parts = [key for key in PARTS if isinstance(content, dict) and isinstance(content.get(key), dict)]
    if parts:
        part = which or parts[0]
        if part not in parts:
            raise UserError(f"{path}: a training checkpoint without {part}; set weights to {parts[0]}")
        content = content[part]
    named = isinstance(content, dict) and all(isinstance(key, str) for key in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path}: not a state dict; give a file that is one, or has one as ema or model")
    return content


def _fill(model: BlockNetwork, weights: Mapping[str, Tensor], path: Path) -> None:
    """Copy the weights into the network. Raises UserError for a key or a shape that does not fit."""
    a, places = model.architecture, model.state_dict()
    for key, place in places.items():
        if key not in weights:
            raise UserError(
                f"{path}: {key} is missing; check the depth {a.depth} and that the file is of this architecture"
            )
        if not weights[key].is_floating_point():
            raise UserError(f"{path}: {key} holds {weights[key].dtype}; save the weights as float32")
        found, expected = tuple(weights[key].shape), tuple(place.shape)
        if found == expected:
            continue
        if key == LABEL_TABLE and found[1:] == expected[1:]:
            advice = f"it was made for {found[0] - 1} classes, not {a.num_classes}: set num_classes"
        elif key == "pos_embed" and found[2:] == expected[2:]:
            advice = f"it is for images of another size: check input_size {a.input_size}, or patch_size"
        elif key.startswith("final_layer.linear") and found[1:] == expected[1:] and 2 * found[0] == expected[0]:
            advice = "it was trained with learn_sigma off, and only layers with twice the image's channels can be read"
        else:
            advice = "check " + ", ".join(f"{name} {getattr(a, name)}" for name in SHAPED_BY[type(a)])
        raise UserError(f"{path}: {key} has shape {found} where {expected} is expected; {advice}")
    unknown = [key for key in weights if key not in places]
    if unknown:
        raise UserError(
            f"{path}: {unknown[0]} has no place in a network of {len(model.blocks)} blocks; check the depth"
        )
    model.load_state_dict(weights)
