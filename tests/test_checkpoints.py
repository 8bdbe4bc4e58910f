"""Networks on disk: what is written is read back, and what is wrong is said in one line."""

import argparse
import functools
import json
import os
import pickle
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import Runs, refused
from safetensors.torch import load_file, save_file

from entpruner.errors import UserError
from entpruner.models.checkpoints import (
    ModelCard,
    build,
    load_model,
    load_official,
    official_architecture,
    official_network,
    read_weights,
    save_model,
)
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture, Flow, UNetArchitecture
from entpruner.params.base import merge
from entpruner.system.files import read_json, write_json

ARCHITECTURE = Architecture(
    depth=3, hidden_size=8, num_heads=2, patch_size=2, input_size=4, in_channels=1, num_classes=3
)
UNET = UNetArchitecture(channels=8, blocks_per_level=1, input_size=4, in_channels=1, num_classes=3)


def network(seed: int = 0, architecture: Any = ARCHITECTURE) -> Any:
    return build(architecture).initialize(torch.Generator().manual_seed(seed))


def card(**changes: Any) -> ModelCard:
    fields = {"architecture": ARCHITECTURE, "kept_blocks": (0, 1, 2), "process": Flow(), "class_names": ("a", "b", "c")}
    return ModelCard(**{**fields, **changes})


def other(**changes: Any) -> Architecture:
    return ARCHITECTURE.model_copy(update=changes)


def same_weights(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("architecture", [ARCHITECTURE, UNET], ids=["transformer", "U-Net"])
def test_a_pruned_model_is_read_back_as_what_it_was(tmp_path: Path, architecture: Any) -> None:
    model = drop_blocks(network(architecture=architecture), {1})
    written = card(architecture=architecture, kept_blocks=model.kept_blocks, source_sha256="0" * 64)
    save_model(tmp_path, model, written)
    read, its_card = load_model(tmp_path)
    assert its_card == written and type(read) is type(model)
    assert read.kept_blocks == tuple(block for block in range(architecture.depth) if block != 1)
    assert same_weights(read, model)
    assert all(parameter.requires_grad == (name != "pos_embed") for name, parameter in read.named_parameters())


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, network(), card())
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kept_blocks": (0, 3)},
        {"kept_blocks": (1, 0)},
        {"class_names": ("a",)},
        {"architecture": UNET, "adapter_width": 2},
    ],
)
def test_a_card_that_contradicts_itself(wrong):
    with pytest.raises(ValueError, match=r"kept_blocks|class_names|adapter_width"):
        card(**wrong)


def test_a_folder_without_a_model_or_without_its_weights(tmp_path: Path) -> None:
    with refused(tmp_path / "model.json", "no such file"):
        load_model(tmp_path)
    save_model(tmp_path, network(), card())
    (tmp_path / "model.safetensors").unlink()
    with refused(tmp_path / "model.safetensors", "check the path"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not a JSON file"), ('{"process": {"kind": "flow"}}', "architecture: Field required")]
)
def test_a_broken_card(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with refused(tmp_path / "model.json", says):
        load_model(tmp_path)


WIDER, DEEPER = {"hidden_size": 16}, {"depth": 4}
OF_FIVE_CLASSES = {"num_classes": 5}


@pytest.mark.parametrize(
    ("architecture", "changes", "more", "file", "says"),
    [
        (ARCHITECTURE, WIDER, {}, "model.safetensors", "pos_embed has shape (1, 4, 8) where (1, 4, 16)"),
        (ARCHITECTURE, OF_FIVE_CLASSES, {"class_names": list("abcde")}, "model.safetensors",
         "3 classes, not 5: set num_classes"),
        (ARCHITECTURE, DEEPER, {"kept_blocks": [0, 1, 2, 3]}, "model.safetensors", "blocks.3"),
        (UNET, {"channels": 16}, {}, "model.safetensors", "check channels 16, multipliers (1, 2)"),
        (UNET, WIDER, {}, "model.json", "architecture"),  # neither a U-Net's card nor a transformer's
    ],
)  # fmt: skip
def test_weights_of_another_architecture_than_the_card(
    tmp_path: Path, architecture: Any, changes: dict[str, Any], more: dict[str, Any], file: str, says: str
) -> None:
    kept = tuple(range(architecture.depth))
    save_model(tmp_path, network(architecture=architecture), card(architecture=architecture, kept_blocks=kept))
    content = read_json(tmp_path / "model.json")
    write_json(tmp_path / "model.json", content | {"architecture": content["architecture"] | changes} | more)
    with refused(tmp_path / file, says):
        load_model(tmp_path)


@pytest.mark.parametrize("kept_bytes", [0, 5, 200, -1])
def test_a_truncated_safetensors_file(tmp_path: Path, kept_bytes: int) -> None:
    save_model(tmp_path, network(), card())
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with refused(file, "truncated"):
        load_model(tmp_path)


def test_what_a_file_calls_its_tensors_does_not_speak_to_the_terminal(tmp_path: Path) -> None:
    header = json.dumps({"\x1b[2J": {"dtype": "F32", "shape": [], "data_offsets": [1, 0]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with refused(tmp_path, r"invalid offset for tensor `\x1b[2J`"):
        load_official(tmp_path / "model.safetensors", ARCHITECTURE)


@pytest.mark.parametrize("wrap", ["bare", "ema", "model", "safetensors"])
def test_an_official_file_in_each_of_its_forms(tmp_path, wrap):
    weights, unwanted = network().state_dict(), network(seed=1).state_dict()
    path = tmp_path / ("official.safetensors" if wrap == "safetensors" else "official.pt")
    if wrap == "safetensors":
        save_file(weights, path)
    else:
        arguments = argparse.Namespace(model="DiT-XL/2", epochs=1400)
        content = {"opt": {"state": {}}, "args": arguments, "model": weights}
        if wrap == "ema":
            content.update(model=unwanted, ema=weights)
        torch.save(weights if wrap == "bare" else content, path)
    assert same_weights(load_official(path, ARCHITECTURE), network())


def test_the_file_of_an_old_torch(tmp_path):
    """Not a zip archive, and so not mapped."""
    path = tmp_path / "official.pt"
    content = {"args": argparse.Namespace(lr=1e-4), "ema": network().state_dict()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert same_weights(load_official(path, ARCHITECTURE), network())


def test_either_weights_of_a_training_checkpoint_can_be_taken(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": network(seed=1).state_dict(), "ema": network().state_dict(), "opt": {}}, path)
    for kind, seed in (("model", 1), ("ema", 0)):
        assert torch.equal(read_weights(path, kind)["blocks.0.mlp.fc1.weight"], network(seed).blocks[0].mlp.fc1.weight)
    torch.save({"model": network().state_dict()}, path)
    with refused(path, "a training checkpoint without ema; set weights to model"):
        read_weights(path, "ema")


class OtherNamespace(argparse.Namespace):
    pass


def in_args(code):
    return {"ema": network().state_dict(), "args": argparse.Namespace(model="DiT-XL/2", results_dir=code)}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize("wrap", [lambda code: code, lambda code: {"ema": {}, "args": code}, in_args])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, write, wrap):
    trace, path = tmp_path / "trace", tmp_path / "official.pt"
    write(wrap(Runs(open, str(trace), "w")), path)
    with refused(path, "code"):
        load_official(path, ARCHITECTURE)
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        OtherNamespace(lr=1e-4),
        types.SimpleNamespace(lr=1e-4),
        argparse.ArgumentParser,
        Runs(getattr, argparse.Namespace, "__init__"),
        Runs(eval, "1"),
        Runs(os.system, "true"),
        Runs(functools.partial, print),
    ],
    ids=lambda code: getattr(code, "__name__", type(code).__name__),
)
def test_of_all_classes_only_the_namespace_of_arguments_is_let_in(tmp_path, code):
    before, path = set(torch.serialization.get_safe_globals()), tmp_path / "official.pt"  # PyTorch keeps no order
    torch.save(in_args(code), path)
    with pytest.raises(UserError, match="code"):
        load_official(path, ARCHITECTURE)
    torch.save(in_args("results"), path)
    assert same_weights(load_official(path, ARCHITECTURE), network())
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("name", ["Namespace.__class__", "Namespace.__init__", "_sys.exit"])
def test_nothing_is_reached_through_the_namespaces_module(tmp_path, name):
    path = tmp_path / "official.pt"
    path.write_bytes(b"\x80\x02cargparse\n%s\n(tR." % name.encode())  # protocol 2: a global, called without arguments
    with pytest.raises(UserError, match="code"):
        load_official(path, ARCHITECTURE)


@pytest.mark.parametrize("kept_bytes", [0, 5, 2000, -1])
def test_a_truncated_official_file(tmp_path, kept_bytes):
    path = tmp_path / "official.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with refused(path, "damaged"):
        load_official(path, ARCHITECTURE)


def test_an_official_file_that_is_not_there_or_holds_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "official.pt"
    with refused(path, "no such file"):
        load_official(path, ARCHITECTURE)
    torch.save({"epoch": 3}, path)
    with refused(path, "not a state dict"):
        load_official(path, ARCHITECTURE)


@pytest.mark.parametrize(
    ("changes", "key", "says"),
    [
        ({"hidden_size": 16}, "pos_embed", "check hidden_size 16"),
        ({"num_classes": 1000}, "y_embedder.embedding_table.weight", "made for 3 classes, not 1000"),
        ({"patch_size": 1}, "pos_embed", "for images of another size: check input_size 4, or patch_size"),
        ({"depth": 2}, "blocks.2.", "network of 2 blocks; check the depth"),
        ({"depth": 5}, "blocks.3.", "check the depth 5"),
    ],
)
def test_an_official_file_of_another_architecture(tmp_path, changes, key, says):
    path = tmp_path / "official.safetensors"
    save_file(network().state_dict(), path)
    with refused(path, key, says):
        load_official(path, other(**changes))


def test_a_head_without_the_second_half(tmp_path):
    """SiT's sampling script builds such a network for its users' own checkpoints."""
    path, weights = tmp_path / "official.safetensors", network().state_dict()
    for key in ("final_layer.linear.weight", "final_layer.linear.bias"):
        weights[key] = weights[key][:4].clone()
    save_file(weights, path)
    with refused(path, "learn_sigma"):
        load_official(path, ARCHITECTURE)


@pytest.mark.parametrize("by", [0.1, float("nan")])
def test_another_position_table(tmp_path, by):
    path, weights = tmp_path / "official.safetensors", network().state_dict()
    weights["pos_embed"][0, 0, 0] += 1e-3  # what averaging may do
    save_file(weights, path)
    load_official(path, ARCHITECTURE)
    weights["pos_embed"][0, 0, 0] += by
    save_file(weights, path)
    with refused(path, "pos_embed is up to"):
        load_official(path, ARCHITECTURE)


def test_the_shapes_say_all_but_the_heads(tmp_path):
    path = tmp_path / "official.pt"
    odd = other(depth=2, input_size=6, in_channels=2, num_classes=5, mlp_ratio=2.5)
    assert official_architecture(path, Transformer(odd).state_dict(), num_heads=2) == odd
    small = other(hidden_size=384, num_heads=6)
    assert official_architecture(path, Transformer(small).state_dict()) == small


@pytest.mark.parametrize(
    ("weights", "heads", "says"),
    [
        ({}, None, "pos_embed is missing"),
        ({"pos_embed": torch.zeros(1)}, None, "pos_embed is missing or no 3-D tensor"),
        (network().state_dict(), None, "hidden size 8 is none of DiT's sizes; give the number of heads"),
        (network().state_dict(), 3, "hidden_size 8 must be a multiple of num_heads"),
    ],
)
def test_weights_whose_architecture_cannot_be_told(tmp_path, weights, heads, says):
    with refused(tmp_path / "official.pt", says):
        official_architecture(tmp_path / "official.pt", weights, heads)


def test_our_file_is_an_official_one(tmp_path):
    """The keys are the published ones, so other loaders can read what we write."""
    save_model(tmp_path, network(), card())
    assert same_weights(load_official(tmp_path / "model.safetensors", ARCHITECTURE), network())
    assert "blocks.0.attn.qkv.weight" in load_file(tmp_path / "model.safetensors")


def hostile(weights: dict[str, Any], change: str) -> dict[Any, Any]:
    table, first = "y_embedder.embedding_table.weight", "blocks.0.mlp.fc1.weight"
    changes: dict[str, dict[Any, Any]] = {
        "integer keys": {1: torch.zeros(1)},
        "an expanded table": {table: torch.zeros(1, 1).expand(10**9, 8)},
        "one storage for all": dict.fromkeys(map(str, range(50)), torch.zeros(10**5)),
        "a meta tensor": {table: torch.zeros(10**9, 8, device="meta")},
        "a sparse tensor": {table: torch.sparse_coo_tensor(size=(10**9, 8), check_invariants=False)},
        "whole numbers": {table: torch.zeros(4, 8, dtype=torch.int64)},
        "no width": {"pos_embed": torch.zeros(1, 4, 0), "x_embedder.proj.weight": torch.zeros(0, 1, 2, 2)},
        "a wide first layer": {first: torch.zeros(8 * 65, 8)},
        "many blocks": {f"blocks.{block}.x": torch.zeros(1) for block in range(1001)},
        "many tensors": {f"blocks.{block}.x": torch.zeros(0) for block in range(20_001)},
        "a wide patch layer": {
            "x_embedder.proj.weight": torch.zeros(65_536, 1, 1, 1),
            **{f"blocks.{block}.x": torch.zeros(1) for block in range(999)},
        },
    }
    return {**weights, **changes[change]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("integer keys", "not a state dict"),
        ("an expanded table", "bytes, the file"),
        ("one storage for all", "bytes, the file"),
        ("a meta tensor", "is no dense tensor"),
        ("a sparse tensor", "is no dense tensor"),
        ("whole numbers", "holds torch.int64"),
        ("no width", "pos_embed is missing or no 3-D tensor"),
        ("a wide first layer", "mlp_ratio"),
        ("many blocks", "depth: at most 1,000 blocks"),
        ("many tensors", "tensors; allowed: at most 20,000"),
        ("a wide patch layer", "a network of this architecture"),
    ],
)
def test_an_official_file_that_would_fill_the_memory_or_is_no_state_dict(
    tmp_path: Path, change: str, says: str
) -> None:
    weights, path = hostile(network().state_dict(), change), tmp_path / "official.pt"
    if change == "many tensors":
        path = path.with_suffix(".safetensors")
        save_file(weights, path)
    else:
        torch.save(weights, path)
    with refused(path, says):
        found = read_weights(path)
        official_network(path, found, official_architecture(path, found, num_heads=2))


def test_a_torch_file_whose_members_are_compressed(tmp_path: Path) -> None:
    """Mapped into memory, compressed bytes would be taken for the numbers themselves."""
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save(network().state_dict(), plain)
    with zipfile.ZipFile(plain) as read, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as written:
        for member in read.infolist():
            written.writestr(member.filename, read.read(member))
    with refused(packed, "is compressed"):
        load_official(packed, ARCHITECTURE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"architecture": {"mlp_ratio": 1e308}}, "mlp_ratio"),
        ({"architecture": {"hidden_size": 65_536}}, "a network of this architecture"),
        ({"architecture": {"num_classes": 10**9}}, "class_names for 1000000000 classes"),
        ({"kept_blocks": list(range(100_000))}, "kept_blocks: Tuple should have at most 1000 items"),
        ({"adapter_width": 10**9}, "a network of this architecture"),
    ],
    ids=str,
)
def test_a_card_of_a_network_that_its_file_cannot_hold(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    save_model(tmp_path, network(), card())
    write_json(tmp_path / "model.json", merge(read_json(tmp_path / "model.json"), changes))
    with refused(tmp_path, says):
        load_model(tmp_path)


def test_a_card_of_deep_json(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    with refused(tmp_path / "model.json", "not a JSON file"):
        load_model(tmp_path)
