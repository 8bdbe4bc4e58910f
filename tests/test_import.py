"""A backbone from a checkpoint: what the rule's command leaves, what goes on from it, and which files are refused."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from snakemake_runs import ROOT, planned, snakemake
from test_commands import ARM, COMPUTE, TRAINING, data_settings, entpruner

from entpruner.models.checkpoints import load_model
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture
from entpruner.system.files import sha256_of

BACKBONE = {"process": {"kind": "flow"}, "depth": 3, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
IMAGES = {"input_size": 8, "in_channels": 1}
CLASSES = 5


def published(seed: int = 0) -> dict[str, torch.Tensor]:
    sizes = {name: BACKBONE[name] for name in ("depth", "hidden_size", "num_heads", "patch_size")}
    network = Transformer(Architecture(**sizes, **IMAGES, num_classes=CLASSES))
    return network.initialize(torch.Generator().manual_seed(seed)).state_dict()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As DiT's and SiT's training scripts save it."""
    path = tmp_path_factory.mktemp("published") / "0400000.pt"
    arguments = argparse.Namespace(model="SiT-XL/2", global_batch_size=256)
    torch.save({"model": published(1), "ema": published(), "opt": {"state": {}}, "args": arguments}, path)
    return path


def imports(file: Path, out: Path, backbone: dict[str, Any] | None = None, **checkpoint: Any) -> int:
    taken = BACKBONE | (backbone or {}) | {"checkpoint": {"path": str(file)} | checkpoint}
    return entpruner("import_checkpoint", {"backbone": taken} | IMAGES, checkpoint=file, out=out)


def test_an_imported_backbone_is_a_model_like_a_trained_one(file: Path, tmp_path: Path) -> None:
    assert imports(file, tmp_path / "sit", sha256=sha256_of(file)) == 0
    model, card = load_model(tmp_path / "sit")
    assert all(torch.equal(weights, published()[key]) for key, weights in model.state_dict().items())
    assert (card.kept_blocks, card.source_sha256, card.process.kind) == ((0, 1, 2), sha256_of(file), "flow")
    assert {path.name for path in (tmp_path / "sit").glob("[!.]*")} == {
        "model.safetensors",
        "model.json",
        "timing.json",
    }
    assert imports(file, tmp_path / "raw", weights="model") == 0
    assert torch.equal(load_model(tmp_path / "raw")[0].state_dict()["x_embedder.proj.weight"],
                       published(1)["x_embedder.proj.weight"])  # fmt: skip


def test_a_file_of_another_checksum_is_not_even_read(file: Path, tmp_path: Path, capsys: Any) -> None:
    cut = tmp_path / "cut.pt"
    cut.write_bytes(file.read_bytes()[:-100])
    assert imports(cut, tmp_path / "sit", sha256=sha256_of(file)) == 1
    assert (
        f"cut.pt: its sha256 is {sha256_of(cut)}, expected {sha256_of(file)}; get the file again"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("label_table", ["new", "first_rows"])
def test_it_moves_to_other_classes_and_keeps_the_rest(file: Path, tmp_path: Path, label_table: str) -> None:
    assert imports(file, tmp_path / "sit") == 0
    assert entpruner("data", data_settings(3, 4), out=tmp_path / "store") == 0
    adapt = ARM | {"artefact": "adapt/sit", "training": TRAINING | {"steps": 0}, "stop": 0}
    adapt["label_table"] = label_table
    assert entpruner("adapt", adapt, store=tmp_path / "store", init=tmp_path / "sit", out=tmp_path / "adapt") == 0
    model, card = load_model(tmp_path / "adapt")
    assert card.class_names == ("3", "4")
    table = model.state_dict().pop("y_embedder.embedding_table.weight")
    assert all(
        torch.equal(weights, published()[key]) for key, weights in model.state_dict().items() if "y_embedder" not in key
    )
    kept = published()["y_embedder.embedding_table.weight"][[0, 1, CLASSES]]
    assert torch.equal(table, kept) == (label_table == "first_rows")
    assert table.shape == kept.shape


def test_with_as_many_classes_the_data_may_be_its_upstream_ones(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imports(file, tmp_path / "sit") == 0
    score = {"artefact": "s", "seed": 0, "criterion": "magnitude", "scoring": {"draws": 8}, "compute": COMPUTE}
    for classes, code in ((range(CLASSES), 0), (range(CLASSES - 1), 1)):
        assert entpruner("data", data_settings(*classes), out=tmp_path / "store") == 0
        assert entpruner("score", score, store=tmp_path / "store", init=tmp_path / "sit", out=tmp_path / "s") == code
    assert "a model of the classes class 0, class 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backbone", "checkpoint", "says"),
    [
        ({}, {"sha256": "0" * 64}, "its sha256 is "),
        ({"depth": 4}, {}, "blocks.3.attn.qkv.weight is missing; check the depth 4"),
        ({"depth": 2}, {}, "blocks.2.attn.qkv.weight has no place in a network of 2 blocks; check the depth"),
        ({"hidden_size": 24}, {}, "check hidden_size 24"),
        ({"patch_size": 2}, {}, "pos_embed has shape (1, 4, 16) where (1, 16, 16) is expected"),
    ],
)
def test_a_file_that_is_not_the_backbones_is_refused_in_one_line(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], backbone: dict[str, Any],
    checkpoint: dict[str, Any], says: str,
) -> None:  # fmt: skip
    assert imports(file, tmp_path / "sit", backbone, **checkpoint) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"entpruner: {file}: ") and says in line
    assert not (tmp_path / "sit").exists()


def test_the_workflow_imports_it_in_the_place_of_pre_training(tmp_path: Path) -> None:
    study = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    study["backbones"]["sit"]["checkpoint"] = {"path": "weights/sit.pt"}
    params = tmp_path / "study.yaml"
    params.write_text(yaml.safe_dump(study, sort_keys=False))
    target = "results/smoke/arms/entpruner-sit-downstream-r50-s0/final/model.json"
    output = snakemake(tmp_path, target, "--dry-run", "--printshellcmds", "--configfile", str(params))
    assert planned(output) == {"import_checkpoint": 1, "data": 1, "adapt": 1, "score": 1, "prune": 2, "recover": 1}
    assert "--checkpoint weights/sit.pt --out results/smoke/pretrain/sit-s0" in output

    study["backbones"]["sit"]["checkpoint"] = {"url": "https://example.org/sit.pt?dl=1", "sha256": "a" * 64}
    params.write_text(yaml.safe_dump(study, sort_keys=False))
    target = "results/smoke/pretrain/sit-s0/model.json"
    output = snakemake(tmp_path, target, "--dry-run", "--printshellcmds", "--configfile", str(params))
    assert planned(output) == {"import_checkpoint": 1, "download": 1}
    assert "--checkpoint data/downloads/aaaaaaaaaaaa/sit.pt" in output
