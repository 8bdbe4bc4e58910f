"""Pipelines of diffusers from a folder or the hub. No code and no pickle of theirs is run."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from safetensors import SafetensorError, safe_open

from entpruner.errors import UserError
from entpruner.layout import PIPELINE, PIPELINE_TRANSFORMER
from entpruner.pipelines.blocks import require_known
from entpruner.system.files import read_json

log = logging.getLogger(__name__)

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def folder_of(model: Path) -> Path:
    """The folder of a pipeline, which is fetched if ``model`` is an id on the hub.

    Raises UserError for an id that cannot be fetched, and for what is no pipeline with one transformer that is known.
    """
    folder = model if model.exists() else fetched(str(model))
    if not (folder / PIPELINE).exists():
        raise UserError(
            f"{model}: a transformer without its pipeline; give the folder of the pipeline that it belongs to"
        )
    parts = {name: part for name, part in read_json(folder / PIPELINE).items() if isinstance(part, list) and any(part)}
    transformers = [name for name in parts if name.startswith(PIPELINE_TRANSFORMER)]
    if len(transformers) > 1:
        raise UserError(
            f"{model}: a pipeline with {len(transformers)} transformers, each for its own part of the times; only "
            "pipelines with one can be pruned"
        )
    if transformers != [PIPELINE_TRANSFORMER]:
        raise UserError(f"{model}: a pipeline without a transformer ({', '.join(parts)}); a U-Net cannot be pruned so")
    if any(part[0] == "transformers" for part in parts.values()) and find_spec("transformers") is None:
        raise UserError(f"{model}: its text encoders need more packages; run: pip install entpruner[diffusers]")
    return folder


def fetched(name: str) -> Path:
    try:
        return Path(DiffusionPipeline.download(name, use_safetensors=True))
    except GatedRepoError:
        raise UserError(
            f"{name}: its owners ask for a login; accept their terms on its page, then: hf auth login"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name}: no such folder, and the hub does not give it ({why}); check the name and the network"
        ) from None


def loaded(folder: Path, dtype: str, device: torch.device) -> DiffusionPipeline:
    """The pipeline of a folder, in the type of its transformer's file unless ``dtype`` says another one.

    Raises UserError for files that are missing, damaged or pickles, and for a class that cannot be pruned.
    """
    kind = stored_dtype(folder / PIPELINE_TRANSFORMER) if dtype == "stored" else getattr(torch, dtype)
    log.info("loading %s in %s", folder, str(kind).removeprefix("torch."))
    try:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=kind, use_safetensors=True)
    except (OSError, ValueError, SafetensorError, json.JSONDecodeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise UserError(f"{folder}: diffusers cannot load it ({why}); get it again, with .safetensors files") from None
    require_known(pipeline.transformer)
    pipeline.transformer.eval()
    pipeline.set_progress_bar_config(disable=True)  # of every sampling: ours shows all of them
    return pipeline.to(device)


def stored_dtype(folder: Path) -> torch.dtype:
    """The type of most values in the weights of a folder."""
    values: dict[Any, int] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (no mapping)
                part = file.get_slice(key)
                count = torch.Size(part.get_shape()).numel()
                values[part.get_dtype()] = values.get(part.get_dtype(), 0) + count
    return DTYPES.get(max(values, key=values.__getitem__), torch.float32) if values else torch.float32
