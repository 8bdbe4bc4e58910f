"""Networks on disk: what is written is read back, and what is wrong is said in one line."""

import argparse
import functools
import json
import os
import pickle
import subprocess
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from entpruner.errors import UserError
from entpruner.models.checkpoints import (
    ModelCard,
    load_model,
    load_official,
    official_architecture,
    read_weights,
    save_model,
)
from entpruner.models.surgery import drop_blocks
from entpruner.models.transformer import Transformer
from entpruner.models.unet import UNet
from entpruner.params.backbones import Architecture, Flow, UNetArchitecture

ARCHITECTURE = Architecture(
    depth=3, hidden_size=8, num_heads=2, patch_size=2, input_size=4, in_channels=1, num_classes=3
)
UNET = UNetArchitecture(channels=8, blocks_per_level=1, input_size=4, in_channels=1, num_classes=3)


def network(seed=0):
    return Transformer(ARCHITECTURE).initialize(torch.Generator().manual_seed(seed))


def card(**changes):
    fields = {"architecture": ARCHITECTURE, "kept_blocks": (0, 1, 2), "process": Flow(), "class_names": ("a", "b", "c")}
    return ModelCard(**{**fields, **changes})


def other(**changes):
    return ARCHITECTURE.model_copy(update=changes)


def same_weights(one, two):
    one, two = one.state_dict(), two.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def one_line(caught, path):
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_pruned_model_is_read_back(tmp_path):
    model = drop_blocks(network(), {1})
    written = card(kept_blocks=(0, 2), source_sha256="0" * 64)
    save_model(tmp_path, model, written)
    read, its_card = load_model(tmp_path)
    assert its_card == written
    assert read.kept_blocks == (0, 2)
    assert same_weights(read, model)
    assert all(parameter.requires_grad == (name != "pos_embed") for name, parameter in read.named_parameters())


def test_a_pruned_u_net_is_read_back_as_one(tmp_path):
    model = drop_blocks(UNet(UNET).initialize(torch.Generator().manual_seed(0)), {1, 5})
    written = card(architecture=UNET, kept_blocks=(0, 2, 3, 4))
    save_model(tmp_path, model, written)
    read, its_card = load_model(tmp_path)
    assert its_card == written and isinstance(read, UNet)
    assert read.kept_blocks == (0, 2, 3, 4)
    assert same_weights(read, model)


@pytest.mark.parametrize("wrong", ["channels", "hidden_size"])
def test_a_card_is_of_a_transformer_or_of_a_u_net(tmp_path, wrong):
    save_model(tmp_path, UNet(UNET), card(architecture=UNET, kept_blocks=tuple(range(6))))
    content = json.loads((tmp_path / "model.json").read_text())
    content["architecture"][wrong] = 16
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    if wrong == "channels":
        assert "check channels 16, multipliers (1, 2)" in one_line(caught, tmp_path / "model.safetensors")
    else:
        assert "architecture" in one_line(caught, tmp_path / "model.json")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_model(tmp_path / name, network(), card())
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_loading_does_not_import_the_compiler(tmp_path):
    """The meta device would: seconds, in every command."""
    save_model(tmp_path, network(), card())
    code = f"""
import sys
from pathlib import Path
from entpruner.models.checkpoints import load_model
load_model(Path({str(tmp_path)!r}))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


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


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert "no such file" in one_line(caught, tmp_path / "model.json")


def test_a_folder_without_weights(tmp_path):
    save_model(tmp_path, network(), card())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert "check the path" in one_line(caught, tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("text", "says"), [("{", "not a JSON file"), ('{"process": {"kind": "flow"}}', "architecture: Field required")]
)
def test_a_broken_card(tmp_path, text, says):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert says in one_line(caught, tmp_path / "model.json")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("hidden_size", 16, "pos_embed has shape (1, 4, 8) where (1, 4, 16)"),
        ("num_classes", 5, "3 classes, not 5: set num_classes"),
        ("depth", 4, "blocks.3"),
    ],
)
def test_weights_of_another_architecture_than_the_card(tmp_path, key, value, says):
    save_model(tmp_path, network(), card())
    content = json.loads((tmp_path / "model.json").read_text())
    content["architecture"][key] = value
    if key == "num_classes":
        content["class_names"] = list("abcde")
    if key == "depth":
        content["kept_blocks"] = [0, 1, 2, 3]
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    message = one_line(caught, tmp_path / "model.safetensors")
    assert says in message


@pytest.mark.parametrize("kept_bytes", [0, 5, 200, -1])
def test_a_truncated_safetensors_file(tmp_path, kept_bytes):
    save_model(tmp_path, network(), card())
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(UserError) as caught:
        load_model(tmp_path)
    assert "truncated" in one_line(caught, file)


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
    assert torch.equal(
        read_weights(path, "model")["blocks.0.attn.qkv.weight"], network(seed=1).blocks[0].attn.qkv.weight
    )
    assert torch.equal(read_weights(path, "ema")["blocks.0.attn.qkv.weight"], network().blocks[0].attn.qkv.weight)
    torch.save({"model": network().state_dict()}, path)
    with pytest.raises(UserError) as caught:
        read_weights(path, "ema")
    assert "a training checkpoint without ema; set weights to model" in one_line(caught, path)


class Runs:
    """Pickled, it is a call of ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class OtherNamespace(argparse.Namespace):
    pass


def in_itself(code):
    return code


def beside(code):
    return {"ema": network().state_dict(), "args": code}


def in_args(code):
    return {"ema": network().state_dict(), "args": argparse.Namespace(model="DiT-XL/2", results_dir=code)}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize(
    "wrap", [lambda code: code, lambda code: {"ema": network().state_dict(), "args": code}, in_args]
)
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, write, wrap):
    trace, path = tmp_path / "trace", tmp_path / "official.pt"
    write(wrap(Runs(open, str(trace), "w")), path)
    with pytest.raises(UserError) as caught:
        load_official(path, ARCHITECTURE)
    assert "code" in one_line(caught, path)
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
    before, path = torch.serialization.get_safe_globals(), tmp_path / "official.pt"
    torch.save(in_args(code), path)
    with pytest.raises(UserError, match="code"):
        load_official(path, ARCHITECTURE)
    torch.save(in_args("results"), path)
    assert same_weights(load_official(path, ARCHITECTURE), network())
    assert torch.serialization.get_safe_globals() == before


@pytest.mark.parametrize("name", ["Namespace.__class__", "Namespace.__init__", "_sys.exit"])
def test_nothing_is_reached_through_the_namespaces_module(tmp_path, name):
    path = tmp_path / "official.pt"
    path.write_bytes(
        b"\x80\x02cargparse\n" + name.encode() + b"\n(tR."
    )  # protocol 2: a global, called without arguments
    with pytest.raises(UserError, match="code"):
        load_official(path, ARCHITECTURE)


@pytest.mark.parametrize("kept_bytes", [0, 5, 2000, -1])
def test_a_truncated_official_file(tmp_path, kept_bytes):
    path = tmp_path / "official.pt"
    torch.save(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(UserError) as caught:
        load_official(path, ARCHITECTURE)
    assert "damaged" in one_line(caught, path)


def test_an_official_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_official(tmp_path / "official.pt", ARCHITECTURE)


def test_a_file_without_a_state_dict(tmp_path):
    path = tmp_path / "official.pt"
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="not a state dict"):
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
    with pytest.raises(UserError) as caught:
        load_official(path, other(**changes))
    message = one_line(caught, path)
    assert key in message and says in message


def test_a_head_without_the_second_half(tmp_path):
    """SiT's sampling script builds such a network for its users' own checkpoints."""
    path, weights = tmp_path / "official.safetensors", network().state_dict()
    for key in ("final_layer.linear.weight", "final_layer.linear.bias"):
        weights[key] = weights[key][:4].clone()
    save_file(weights, path)
    with pytest.raises(UserError) as caught:
        load_official(path, ARCHITECTURE)
    assert "learn_sigma" in one_line(caught, path)


@pytest.mark.parametrize("by", [0.1, float("nan")])
def test_another_position_table(tmp_path, by):
    path, weights = tmp_path / "official.safetensors", network().state_dict()
    weights["pos_embed"][0, 0, 0] += 1e-3  # what averaging may do
    save_file(weights, path)
    load_official(path, ARCHITECTURE)
    weights["pos_embed"][0, 0, 0] += by
    save_file(weights, path)
    with pytest.raises(UserError) as caught:
        load_official(path, ARCHITECTURE)
    assert "pos_embed is up to" in one_line(caught, path)


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
    with pytest.raises(UserError) as caught:
        official_architecture(tmp_path / "official.pt", weights, heads)
    assert says in one_line(caught, tmp_path / "official.pt")


def test_our_file_is_an_official_one(tmp_path):
    """The keys are the published ones, so other loaders can read what we write."""
    save_model(tmp_path, network(), card())
    assert same_weights(load_official(tmp_path / "model.safetensors", ARCHITECTURE), network())
    assert "blocks.0.attn.qkv.weight" in load_file(tmp_path / "model.safetensors")
