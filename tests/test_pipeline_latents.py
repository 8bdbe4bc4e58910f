"""One arm of a study of latents, from a zip of images to its distance on pixels."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from snakemake_runs import ROOT, command, environment, planned, snakemake

from entpruner.artefacts import read_json
from entpruner.data.latents import LatentStore
from entpruner.data.store import Store

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
        "sampling": {"samples": 8, "batch_size": 4, "flow": {"name": "euler", "steps": 2}},
        "evaluation": smoke["evaluation"] | {"classifier": {"steps": 4}, "kid_subset_size": 4},
        "compute": smoke["compute"],
        "arms": {
            "pruned": {
                "label": "EntPruner", "backbone": "sit", "data": "upstream",
                "criterion": "ced", "schedule": "one_shot", "ratio": 0.5,
            },
        },
    }  # fmt: skip


def random_images(file: Path) -> None:
    random = np.random.default_rng(0)
    with zipfile.ZipFile(file, "w") as archive:
        for name in [f"{split}/{label}/{i}.png" for split in ("train", "val") for label in "ab" for i in range(6)]:
            content = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(content, "PNG")
            archive.writestr(name, content.getvalue())


def test_networks_of_a_study_of_latents_are_measured_on_pixels(tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    widths = {"block_out_channels": (8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    AutoencoderKL(**blocks, **widths).save_pretrained(tmp_path / "vae")
    random_images(tmp_path / "faces.zip")
    file = tmp_path / "faces.yaml"
    file.write_text(yaml.safe_dump(study(), sort_keys=False))
    given = (f"{ARM}/metrics.json", "--configfile", str(file))
    warm = [str(Path(sys.executable).parent / "entpruner"), "warm", "--"]
    run = subprocess.run(
        [*warm, *command(tmp_path, *given)], env=environment(), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr

    results = tmp_path / "results/faces"
    latents = LatentStore.open(results / "latents/upstream", verify=True)
    assert latents.moments.shape == (24, 2, 8, 4, 4)
    assert not [path for path in (results / "latents/upstream.parts").rglob("*") if path.is_file()]
    architecture = read_json(tmp_path / ARM / "final/model.json")["architecture"]
    assert (architecture["in_channels"], architecture["input_size"]) == (4, 4)
    assert Store.open(tmp_path / ARM / "samples").images.shape == (8, 3, 16, 16)
    assert read_json(tmp_path / ARM / "metrics.json")["fd_classifier"] > 0
    assert planned(snakemake(tmp_path, *given, "--dry-run")) == {}

    (results / "latents/upstream/moments.npy").unlink()
    again = planned(snakemake(tmp_path, "results/faces/latents/upstream/moments.npy", *given[1:], "--dry-run"))
    assert again == {"latents_shard": 2, "latents": 1}
