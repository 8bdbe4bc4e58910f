"""An arm and an audit of a study of latents, from a zip of images to distances on pixels."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from snakemake_runs import ROOT, planned, snakemake

from entpruner.data.latent_store import LatentStore
from entpruner.data.store import Store
from entpruner.system.files import read_json

pytestmark = pytest.mark.slow

ARM = "results/faces/arms/pruned-sit-upstream-r50-s0"


def study() -> dict[str, Any]:
    training = {"steps": 4, "batch_size": 4, "horizontal_flip": True}
    smoke = yaml.safe_load((ROOT / "params/smoke.yaml").read_text())
    return {
        "study": "faces",
        "datasets": {"upstream": {"source": "image_folder", "path": "faces.zip", "image_size": 16}},
        "latents": {"kind": "kl", "folder": "vae", "factor": 4, "batch_size": 3, "shards": 2},
        "backbones": {"sit": smoke["backbones"]["sit"] | {"patch_size": 2}},
        **dict.fromkeys(("pretrain", "adapt", "finetune"), training),
        "scoring": {"draws": 16},
        "proxies": {"ntk": {"samples": 2}, "zico": {"batch_size": 2}},
        "pruning": {"stages": 2},
        "sampling": {"samples": 8, "batch_size": 4, "flow": {"name": "euler", "steps": 2}},
        "evaluation": smoke["evaluation"] | {"classifier": {"steps": 4}, "kid_subset_size": 4},
        "compute": smoke["compute"],
        "arms": {
            "pruned": {
                "label": "EntPruner", "backbone": "sit", "data": "upstream",
                "criterion": "ced", "schedule": "one_shot", "ratio": 0.5,
            },
        },
        "audit": {
            "backbones": ["sit"], "data": "upstream", "samples": 4, "masks": 5, "finetune_steps": 2,
            "regime": {"masks": 3, "candidates": [{"ratio": 0.5, "steps": 1}]},
            "criteria": {name: {"criterion": name} for name in ("ced", "ld_pruner", "taylor")},
            "proxies": {"samples": [2], "batches": [8], "repeats": 2, "chains": 5, "ratios": [0.5]},
            "schedules": {"weights": [0.5]},
            "stability": {"draws": [8], "repeats": 2},
        },
    }  # fmt: skip


def random_images(file: Path) -> None:
    random = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        for name in [f"{split}/{label}/{i}.png" for split in ("train", "val") for label in "ab" for i in range(6)]:
            content = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(content, "PNG")
            archive.writestr(name, content.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study has run, its arm and its audit."""
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("study")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    widths = {"block_out_channels": (8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    AutoencoderKL(**blocks, **widths).save_pretrained(folder / "vae")
    random_images(folder / "faces.zip")
    (folder / "faces.yaml").write_text(yaml.safe_dump(study(), sort_keys=False))
    snakemake(folder, f"{ARM}/metrics.json", "audit", *given(folder), warm=True)
    return folder


def given(folder: Path) -> tuple[str, str]:
    return "--configfile", str(folder / "faces.yaml")


def test_networks_of_a_study_of_latents_are_measured_on_pixels(folder: Path) -> None:
    latents = LatentStore.open(folder / "results/faces/latents/upstream", verify=True)
    assert latents.moments.shape == (24, 2, 8, 4, 4)
    assert not [path for path in (folder / "results/faces/latents/upstream.parts").rglob("*") if path.is_file()]
    architecture = read_json(folder / ARM / "final/model.json")["architecture"]
    assert (architecture["in_channels"], architecture["input_size"]) == (4, 4)
    assert Store.open(folder / ARM / "samples").images.shape == (8, 3, 16, 16)
    assert read_json(folder / ARM / "metrics.json")["fd_classifier"] > 0


def test_so_are_the_sub_networks_of_its_audit(folder: Path) -> None:
    audit = folder / "results/faces/audit"
    assert "trained from nothing" in (audit / "detail.md").read_text()
    assert "fine-tuning is shrunk to 2 steps" in (audit / "detail.md").read_text()
    parts = ("masks", "scores", "choices", "proxies", "schedules", "stability")
    for seed in (0, 1, 2):
        contents = {part: read_json(audit / part / f"sit-s{seed}.json") for part in parts}
        for record in (contents["masks"]["unpruned"], *contents["masks"]["masks"]):
            assert min(record["loss"], record["distance_before"], record["distance"]) > 0
        assert contents["schedules"]["paper"]["regime"] == {"ratio": 0.5, "steps": 2}
        assert contents["choices"]["choices"].keys() == {"ced", "ld_pruner", "taylor"}


def test_nothing_is_made_again_but_latents_that_are_gone_in_shards(folder: Path) -> None:
    assert planned(snakemake(folder, f"{ARM}/metrics.json", "audit", *given(folder), "--dry-run")) == {}
    moments = "results/faces/latents/upstream/moments.npy"
    (folder / moments).unlink()
    again = planned(snakemake(folder, moments, *given(folder), "--dry-run"))
    assert again == {"latents_shard": 2, "latents": 1}
