"""``entpruner score``, ``prune``, ``sample`` and ``export`` for a model and images of one's own: options and output.

``score`` and ``prune`` also take a pipeline of diffusers and a file of prompts.
"""

import argparse
import math
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from entpruner.cli.rule import out_of_memory_explained
from entpruner.errors import UserError
from entpruner.layout import CODEC_CONFIG, PIPELINE
from entpruner.params.arms import Criterion, Schedule
from entpruner.params.files import read_own_model, read_settings
from entpruner.params.pipelines import OwnPipeline
from entpruner.params.study import OwnModel
from entpruner.rules import RULES
from entpruner.system import launch

if TYPE_CHECKING:
    from entpruner.own_model import Model
    from entpruner.scores import Scores


def score(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner score model.pt photos/ --process flow --out scores.json"
    add_model(parser)
    add_images(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the scores, as JSON")
    parser.add_argument("--ratio", type=float, help="share of blocks to remove, for criteria that choose a set")
    add_settings(parser)
    parser.set_defaults(action=scored)


def prune(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner prune model.pt photos/ --process flow --ratio 0.5 --out pruned"
    add_model(parser)
    add_images(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the model ends in FOLDER/final")
    parser.add_argument("--ratio", type=float, required=True, help="share of blocks to remove: 0.5")
    parser.add_argument(
        "--by", choices=("blocks", "parameters"), default="blocks", help="of a pipeline: what the share is of"
    )
    recovery = "of a pipeline: which weights learn, adapters or all of them, or that none does; default: lora"
    parser.add_argument("--recover", choices=("lora", "full", "none"), help=recovery)
    parser.add_argument("--schedule", choices=get_args(Schedule)[1:], default="vote", help="default: vote")
    add_key(parser, "--steps", "finetune.steps", int, "of training from the first stage on")
    add_key(parser, "--adapt-steps", "adapt.steps", int, "of training on new classes before")
    add_settings(parser)
    parser.set_defaults(action=pruned)


def sample(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner sample pruned/final --classes cat dog --samples 8 --out samples"
    add_model(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="of PNG files, and up to 256 of them in one"
    )
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="names, or numbers from 0 (default: all)")
    add_key(parser, "--samples", "sampling.samples", int, "images in all, the classes in turn")
    add_key(parser, "--guidance", "sampling.guidance", float, "classifier-free guidance scale; 1 is none")
    add_settings(parser)
    parser.set_defaults(action=sampled)


def export(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner export pruned/final --out pruned.pt\n"
    parser.epilog += "  entpruner export pruned/final --to diffusers --vae stabilityai/sd-vae-ft-ema --out pruned-dit"
    add_model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="PATH", help=".pt, .pth, .safetensors, or a folder")
    whose = "whose names: the official code's (a file), or diffusers' (a folder, of a DiT); default: official"
    parser.add_argument("--to", choices=("official", "diffusers"), default="official", help=whose)
    parser.add_argument("--vae", help="autoencoder of the DiTPipeline; without it, its transformer alone is written")
    parser.set_defaults(action=exported)


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="our folder, official file, or pipeline of diffusers")
    official = parser.add_argument_group("what an official file does not say")
    official.add_argument("--process", help="diffusion (DiT), flow (SiT), or flow-gvp")
    official.add_argument("--heads", type=int, help="attention heads, if the width is not one of DiT's")


def add_images(parser: argparse.ArgumentParser) -> None:
    """The images, and the criterion that scores the blocks on them."""
    parser.add_argument("--criterion", choices=get_args(Criterion), default="ced", help="default: ced")
    parser.add_argument(
        "images",
        type=Path,
        metavar="IMAGES",
        help="folder or archive of <class>/*.jpg or .png; for a pipeline, a file of prompts, one a line",
    )


def add_key(parser: argparse.ArgumentParser, option: str, key: str, kind: type, says: str) -> None:
    """An option that stands for a key of a section."""
    metavar = option.removeprefix("--").upper()
    parser.add_argument(option, dest=key, type=kind, metavar=metavar, help=f"{says} ({key})")


def add_settings(parser: argparse.ArgumentParser) -> None:
    settings = parser.add_argument_group("settings")
    settings.add_argument("--params", type=Path, metavar="FILE", help="sections of a study over the defaults")
    settings.add_argument("--vae", help="autoencoder of a model that works on latents: folder, or id on the hub")
    settings.add_argument("--seed", type=int, help="default: 0")
    settings.add_argument("--device", dest="compute.device", choices=("auto", "cpu", "cuda"), help="default: auto")


# -------------------------------------------------------------------------------------------------------- what they do


def scored(given: argparse.Namespace) -> None:
    from entpruner import own_model
    from entpruner.system.files import write_json

    if given.out.is_dir():
        raise UserError(f"{given.out}: a folder; give the name of a file to write")
    if on_prompts(given):
        scores = scored_pipeline(given)
    else:
        how = settings(given)  # before a model is read, which may take a minute
        with out_of_memory_explained(RULES["score"]):
            scores = own_model.score(loaded(given), given.images, given.criterion, given.ratio, how)
    write_json(given.out, scores.to_json())
    print("blocks, the first to go first:", *scores.order)


def pruned(given: argparse.Namespace) -> None:
    if on_prompts(given):
        return pruned_pipeline(given)
    if given.recover is not None:
        raise UserError("--recover is for a pipeline of diffusers; a DiT or SiT has finetune.method (--params)")
    how = settings(given)

    def work() -> None:
        from entpruner import own_model
        from entpruner.system import parallel

        with out_of_memory_explained(RULES["prune"]):
            smaller = own_model.prune(
                loaded(given), given.images, given.out, given.ratio, given.criterion, given.schedule, how
            )
        if parallel.is_first():
            print(f"{given.out / 'final'}: blocks", *smaller.card.kept_blocks)

    launch.together(work, given.arguments, how.compute)


def sampled(given: argparse.Namespace) -> None:
    from entpruner import own_model
    from entpruner.commands.sample import grid, picture
    from entpruner.layout import GRID
    from entpruner.system.files import whole_folder

    if given.out.exists():
        raise UserError(f"{given.out}: is there already; give another folder, or remove it")
    how = settings(given)
    with out_of_memory_explained(RULES["sample"]):
        images, labels = own_model.sample(loaded(given), given.classes, how)
    with whole_folder(given.out, with_checksums=False) as folder:
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            picture(image).save(folder / f"{number:05d}-class{label}.png")
        side = min(math.ceil(len(images) ** 0.5), 16)
        grid(images, columns=side, rows=side).save(folder / GRID)


def exported(given: argparse.Namespace) -> None:
    from entpruner import own_model
    from entpruner.models.diffusers_names import TIME_FIX

    if given.to == "official" and given.vae is not None:
        raise UserError("--vae: an official file has no autoencoder; leave it out, or add --to diffusers")
    model = loaded(given)
    shape = f"depth={len(model.card.kept_blocks)}, num_classes={len(model.card.class_names)}"
    if given.to == "official":
        own_model.export(model, given.out)
        print(f"{given.out}: {shape}")
        return
    own_model.export_diffusers(model, given.out, read_own_model([], latents_of(given.vae)))
    name, kind = ("transformer", "DiTTransformer2DModel") if given.vae is None else ("pipeline", "DiTPipeline")
    print(f"{given.out}: {shape}\n\n{name} = diffusers.{kind}.from_pretrained('{given.out}')")
    print(TIME_FIX if given.vae else TIME_FIX.replace("pipeline.transformer", name), end="")


def on_prompts(given: argparse.Namespace) -> bool:
    """Whether the model is a folder of diffusers, or may be an id on the hub, and is shown a file of prompts.

    A DiT of diffusers that is shown a folder or archive of images is read as one of ours.
    """
    model, images = given.model, given.images
    on_the_hub = len(model.parts) == 2 and not model.suffix and model.parts[0] not in ("/", "..", "~")
    pipeline = (model / PIPELINE).exists() or (model / CODEC_CONFIG).exists() or (on_the_hub and not model.exists())
    archive = images.is_file() and (zipfile.is_zipfile(images) or tarfile.is_tarfile(images))
    return pipeline and not (images.is_dir() or archive)


def scored_pipeline(given: argparse.Namespace) -> "Scores":
    from entpruner.pipelines import capture, loading, pruning
    from entpruner.system.devices import configure

    how, prompts = pipeline_settings(given), capture.read_prompts(given.images)
    pruning.require_criterion(given.criterion, given.ratio)
    pipeline = loading.loaded(loading.folder_of(given.model), how.pipeline.dtype, configure(how.compute.alone))
    with out_of_memory_explained(RULES["score"]):
        return pruning.score(pipeline, prompts, given.criterion, given.ratio, how)


def pruned_pipeline(given: argparse.Namespace) -> None:
    from entpruner.pipelines import capture, pruning
    from entpruner.system import parallel

    how, prompts = pipeline_settings(given), capture.read_prompts(given.images)

    def work() -> None:
        with out_of_memory_explained(RULES["prune"]):
            final = pruning.prune(given.model, prompts, given.out, given.ratio, given.criterion, given.by, how)
        if parallel.is_first():
            stock = f"DiffusionPipeline.from_pretrained('{final}')"
            print(f"{final}: see README.md in it; stock diffusers loads it: {stock}")

    launch.together(work, given.arguments, how.compute)


def pipeline_settings(given: argparse.Namespace) -> OwnPipeline:
    """The settings for a pipeline. ``--steps`` are those of its recovery."""
    for name in ("process", "heads", "vae", "adapt.steps"):
        if vars(given).get(name) is not None:
            option = name.replace(".", "-")
            raise UserError(
                f"--{option} is for DiT and SiT, and {given.model} is a pipeline of diffusers; leave it out"
            )
    options: dict[str, Any] = {} if given.seed is None else {"seed": given.seed}
    if (steps := vars(given).get("finetune.steps")) is not None:
        options["recovery"] = {"steps": steps}
    if (method := vars(given).get("recover")) is not None:
        options.setdefault("recovery", {}).update({"steps": 0} if method == "none" else {"method": method})
    if device := vars(given)["compute.device"]:
        options["compute"] = {"device": device}
    return read_settings(OwnPipeline, [] if given.params is None else [given.params], options)


def loaded(given: argparse.Namespace) -> "Model":
    from entpruner.own_model import load

    return load(given.model, given.process, given.heads)


def settings(given: argparse.Namespace) -> OwnModel:
    """The settings. An option whose ``dest`` is a section and a key, with a dot between them, stands for this key."""
    options: dict[str, Any] = {} if given.seed is None else {"seed": given.seed}
    for option, value in vars(given).items():
        section, _, key = option.partition(".")
        if key and value is not None:
            options.setdefault(section, {})[key] = value
    options |= latents_of(given.vae)
    return read_own_model([] if given.params is None else [given.params], options)


def latents_of(vae: str | None) -> dict[str, Any]:
    """The section ``latents`` of an autoencoder that is named on the command line."""
    if vae is None:
        return {}
    elsewhere = vae.count("/") == 1 and vae[0] not in "./~" and not Path(vae).is_dir()
    return {"latents": {"kind": "kl", "hub" if elsewhere else "folder": vae}}
