"""EntPruner on your own model and images, without Snakemake.

``entpruner score``, ``prune``, ``sample`` and ``export`` call the functions of the same names.

A model is an official DiT or SiT file, a folder of model.safetensors and model.json, or a DiT of diffusers. Images
are a folder or archive of ``<class>/*.jpg|png``, or a store of images or latents that the workflow made. A model that
works on latents, as the official ones do, needs ``settings.latents``, which names their autoencoder.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entpruner.commands import adapt, autoencoder, latents, latents_shard, recover
from entpruner.commands import prune as stage_command
from entpruner.commands import score as score_command
from entpruner.data.autoencoder import fetch_autoencoder, load_autoencoder
from entpruner.data.class_folders import prepare_class_folders
from entpruner.data.latent_store import AnyStore, LatentStore, open_store
from entpruner.errors import UserError
from entpruner.evaluation.sampling import sample_images
from entpruner.layout import CARD, CODEC_CONFIG, MANIFEST, PIPELINE, SCORES
from entpruner.models.checkpoints import (
    ModelCard,
    export_official,
    load_model,
    official_architecture,
    official_card,
    official_network,
    plain,
    read_weights,
    save_model,
    unnamed_classes,
)
from entpruner.models.diffusers_names import load_diffusers, save_diffusers
from entpruner.models.network import BlockNetwork
from entpruner.models.surgery import renumbered
from entpruner.params.arms import SIZED, Criterion, Override, Schedule
from entpruner.params.backbones import Diffusion, Flow, ProcessSettings
from entpruner.params.compute import Compute
from entpruner.params.criteria import cost_of
from entpruner.params.pruning import blocks_to_remove
from entpruner.params.study import OwnModel
from entpruner.process import make_process
from entpruner.rules.data import AutoencoderSettings, ShardSettings
from entpruner.rules.pretrain import AdaptSettings
from entpruner.rules.prune import PruneSettings, RecoverSettings
from entpruner.rules.score import Ranking, ScoreSettings
from entpruner.scores import Scores
from entpruner.study.arms import Arm
from entpruner.system import parallel
from entpruner.system.devices import configure
from entpruner.system.files import read_json, sha256_of, whole_folder, write_json
from entpruner.system.temporary import temporary_folder

log = logging.getLogger(__name__)

PROCESSES: dict[str, ProcessSettings] = {"diffusion": Diffusion(), "flow": Flow(), "flow-gvp": Flow(interpolant="gvp")}


class Model(NamedTuple):
    network: BlockNetwork
    card: ModelCard


def load(path: str | Path, process: str | None = None, num_heads: int | None = None) -> Model:
    """Read a folder that this package wrote, an official file (.pt, .pth, .safetensors), or a folder of diffusers.

    The latter is a DiTPipeline, or the transformer of one. An official file does not tell its ``process``, so it must
    be given: a key of PROCESSES, ``diffusion`` for a DiT and ``flow`` for a SiT. ``num_heads`` is needed if the width
    is not that of a published DiT.

    Raises UserError for a file that is missing, unsafe or not a DiT or SiT.
    """
    path = Path(path)
    if of_diffusers(path):
        return Model(*load_diffusers(path))
    if path.is_dir():
        return Model(*load_model(path))
    if process not in PROCESSES:
        wrong = "" if process is None else f", and {process} is none"
        raise UserError(f"{path}: DiT's and SiT's files look alike; say the process{wrong}: {', '.join(PROCESSES)}")
    log.info("reading %s", path)
    weights = read_weights(path)
    network = official_network(path, weights, official_architecture(path, weights, num_heads))
    return Model(network, official_card(network, PROCESSES[process], sha256_of(path)))


def of_diffusers(folder: Path) -> bool:
    """Whether a folder is a pipeline of diffusers, or a network of one."""
    return not (folder / CARD).exists() and any((folder / name).exists() for name in (PIPELINE, CODEC_CONFIG))


def score(
    model: Model,
    images: str | Path,
    criterion: Criterion = "ced",
    ratio: float | None = None,
    settings: OwnModel | None = None,
) -> Scores:
    """The importance of every block. The block with the lowest one goes first.

    Criteria that choose a set of blocks (SIZED) need ``ratio``, the share of the blocks to remove. The images are shown
    with their classes if the model knows these, and with no class otherwise, because the model is not trained here.
    """
    settings = alone(settings)
    network, card = model
    configure(settings.compute)
    if criterion in SIZED and ratio is None:
        raise UserError(f"{criterion} chooses a set of blocks; give the ratio of blocks to remove (--ratio)")
    remove = None if ratio is None else number_to_remove(len(network.blocks), ratio)
    with temporary_folder() as folder:
        store = opened_store(prepared(Path(images), folder, card, settings), card)
        data = store.split("train")
        if class_names(card, store) is None:
            if cost_of(criterion, settings.scoring) == "training":
                raise UserError(f"{images}: {criterion} trains, but the model does not know these classes; use prune")
            log.info("the model does not know the images' classes: they are shown with no class")
            none = np.full_like(data.labels, network.null_class)
            data = replace(data, labels=none, num_classes=network.null_class + 1)
        how = score_settings(settings, criterion, remove)
        return score_command.ranked(how, how, network, make_process(card.process), data, remove)


def prune(
    model: Model,
    images: str | Path,
    out: str | Path,
    ratio: float,
    criterion: Criterion = "ced",
    schedule: Schedule = "vote",
    settings: OwnModel | None = None,
) -> Model:
    """Score, prune in stages and train, as the workflow does with an arm. Returns the model in ``out``/final.

    If the model does not know the classes of the images, new labels are trained first. ``out`` gets the folders of an
    arm: data, latents, start, adapt, scores, stage1 ..., final. A folder that exists is kept, so a killed run goes on
    when it is started again. Blocks are numbered as in ``model``. There are at most as many stages as blocks to remove.
    Several processes share the trainings, and the first does the rest.

    Raises UserError if ``out`` holds anything else, for a ratio that leaves all or no blocks, and if there are not as
    many processes as ``settings.compute`` asks for.
    """
    settings, out = settings or OwnModel(), Path(out)
    configure(settings.compute)
    require_processes(settings.compute)
    network = renumbered(plain(model.network))
    arm = arm_of(len(network.blocks), model.card, ratio, criterion, schedule, settings)
    asked = {"ratio": ratio, "criterion": criterion, "schedule": schedule}
    asked |= settings.model_dump(mode="json", exclude={"compute": set(Compute.AT_WILL)})
    asked |= {"model": digest(network), "images": str(Path(images))}
    if parallel.is_first():
        claim(out, asked)
        prepared(Path(images), out, model.card, settings)
    parallel.wait()
    store = prepared(Path(images), out, model.card, settings)
    init = start(Model(network, model.card), store, out, settings)

    if to_do(out / "scores", f"scoring {arm.depth} blocks by {criterion}") and parallel.is_first():
        remove = arm.blocks_removed if criterion in SIZED else None
        score_command.run(score_settings(settings, criterion, remove), store=store, init=init, out=out / "scores")
    teacher = None if settings.finetune.distillation is None else init
    for stage in range(1, arm.stages + 1):
        folder = out / f"stage{stage}"
        if to_do(folder, f"stage {stage} of {arm.stages}"):
            staged = PruneSettings.of(arm, stage, folder.name, settings.sampling, settings.compute)
            scores = out / "scores" / SCORES
            stage_command.run(staged, store=store, init=init, scores=scores, teacher=teacher, out=folder)
        init = folder
    if to_do(out / "final", "recovery"):
        last = RecoverSettings.of(arm, "final", settings.label_table, settings.compute)
        recover.run(last, store=store, init=init, scores=None, teacher=teacher, out=out / "final")
    parallel.wait()
    return load(out / "final")


def arm_of(
    depth: int, card: ModelCard, ratio: float, criterion: Criterion, schedule: Schedule, settings: OwnModel
) -> Arm:
    """The arm of the pruning. Raises UserError if its steps are too few for its stages."""
    total = number_to_remove(depth, ratio)
    stages = min(settings.pruning.stages, total)
    arm = Arm(
        name="own_model",
        label="",
        backbone="own",
        process=card.process.kind,
        data="images",
        schedule=schedule,
        criterion=criterion,
        ratio=ratio,
        seed=settings.seed,
        depth=depth,
        start="adapted",
        scores=criterion,
        **{section: getattr(settings, section) for section in Override.model_fields if section != "pruning"},
        pruning=settings.pruning.model_copy(update={"stages": stages}),
    )
    if len(set(arm.boundaries[:-1])) < arm.stages + 1:
        share = settings.pruning.fraction
        raise UserError(
            f"{settings.finetune.steps} steps are too few for {arm.stages} stages in the first {share:.0%} of them; "
            f"give {math.ceil(arm.stages / share)} or more (--steps, finetune.steps), or fewer pruning.stages"
        )
    return arm


def score_settings(settings: OwnModel, criterion: Criterion, remove: int | None) -> ScoreSettings:
    ranking = Ranking.of(criterion, settings.scoring, settings.sampling)
    return ScoreSettings(
        artefact="scores", seed=settings.seed, compute=settings.compute, remove=remove, **dict(ranking)
    )


def number_to_remove(depth: int, ratio: float) -> int:
    total = blocks_to_remove(depth, ratio)
    if not 0 < total < depth:
        raise UserError(f"ratio {ratio} removes {total} of {depth} blocks; give one that removes 1 to {depth - 1}")
    return total


def start(model: Model, store: Path, out: Path, settings: OwnModel) -> Path:
    """The folder of the model that scoring and pruning begin with.

    It holds the given model, or the model that was trained on the classes of the images.
    """
    (network, card), folder = model, out / "start"
    known = class_names(card, opened_store(store, card))
    if parallel.is_first() and not folder.exists():
        names = card.class_names if known is None else known
        changes = {"architecture": network.architecture, "kept_blocks": network.kept_blocks, "class_names": names}
        with whole_folder(folder) as partial:
            save_model(partial, network, card.model_copy(update=changes))
    if known is not None:
        return folder
    if to_do(out / "adapt", f"new classes: {settings.adapt.steps} steps on their labels"):
        adapted = AdaptSettings(
            artefact="adapt",
            seed=settings.seed,
            training=settings.adapt,
            stop=settings.adapt.steps,
            label_table=settings.label_table,
            compute=settings.compute,
        )
        adapt.run(adapted, store=store, init=folder, out=out / "adapt")
    return out / "adapt"


def sample(
    model: Model, classes: Sequence[int | str] | None = None, settings: OwnModel | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, C, H, W) uint8 and their classes (n,), where n is ``settings.sampling.samples``.

    The classes take turns. They are all classes of the model, or those that are given by number or name. Raises
    UserError for a class that the model does not have.
    """
    settings = alone(settings)
    network, card = model
    numbers = None if classes is None else [class_number(card, name) for name in classes]
    process, device = make_process(card.process), configure(settings.compute)
    decode = decoder(settings, card, device)
    return sample_images(
        network, process, settings.sampling, seed=settings.seed, device=device, classes=numbers, decode=decode
    )


def alone(settings: OwnModel | None) -> OwnModel:
    """The settings, by default the defaults, for what one process does."""
    settings = settings or OwnModel()
    return settings.model_copy(update={"compute": settings.compute.alone})


def export(model: Model, path: str | Path) -> None:
    """Write the weights for the official code. Its ``depth`` must be set to the number of blocks that are left.

    The official samplers take row 1000 of the label table as "no class", so their guidance needs a change if the model
    has another number of classes. Raises UserError for a network with adapters, and for a U-Net.
    """
    export_official(Path(path), model.network)


def export_diffusers(model: Model, folder: str | Path, settings: OwnModel | None = None) -> None:
    """Write a DiT for diffusers: a DiTPipeline, or without ``settings.latents`` its transformer alone.

    The pipeline works on latents, so it is written with the autoencoder that ``settings.latents`` names. diffusers
    computes other frequencies of time than DiT: see ``TIME_FIX``. "No class" is row 1000, as the pipeline expects it.

    Raises UserError for a SiT, which diffusers has no pipeline for, and as ``export`` does.
    """
    latents, folder = (settings or OwnModel()).latents, Path(folder)
    if folder.exists():
        raise UserError(f"{folder}: is there already; give another folder, or remove it")
    with temporary_folder() as fetched, whole_folder(folder, with_checksums=False) as partial:
        autoencoder = None
        if latents is not None:
            require_match(model.card, settings or OwnModel())
            fetch_autoencoder(latents, fetched)
            autoencoder = load_autoencoder(fetched, latents, torch.device("cpu")).network
            autoencoder.register_to_config(scaling_factor=latents.scale)
        save_diffusers(partial, model.network, model.card, autoencoder)


# ------------------------------------------------------------------------------------------------------------- parts


def class_names(card: ModelCard, store: AnyStore) -> tuple[str, ...] | None:
    """The names of the classes if the model and the images have the same classes, and None otherwise.

    An official file has no names of classes, so the same number of classes is enough.
    """
    same = card.class_names in (store.class_names, unnamed_classes(store.num_classes))
    return tuple(store.class_names) if same else None


def class_number(card: ModelCard, name: int | str) -> int:
    text, names = str(name), card.class_names
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise UserError(f"class {text}: the model has {len(names)}, {names[0]} to {names[-1]}; give a name, or 0, 1, ...")


def prepared(images: Path, folder: Path, card: ModelCard, settings: OwnModel) -> Path:
    """The store of what the model sees, images or latents. It is made in ``folder``, unless ``images`` is the store."""
    a, how = card.architecture, settings.latents
    store = images if (images / MANIFEST).exists() else folder / "data"
    if store == images and isinstance(open_store(images), LatentStore):
        return images
    require_match(card, settings)
    if missing(store, "reading the images"):
        side, channels = (a.input_size, a.in_channels) if how is None else (a.input_size * how.factor, 3)
        prepare_class_folders(images, store, side, channels, settings.compute.threads)
    if how is None:
        return store
    out, codec, parts = folder / "latents", folder / "autoencoder", folder / "latents.parts"
    if missing(codec, "fetching the autoencoder"):
        autoencoder.run(AutoencoderSettings(latents=how), out=codec)
    if missing(out, "encoding the images"):
        for shard in range(how.shards):
            share = ShardSettings(latents=how, shard=shard, compute=settings.compute)
            latents_shard.run(share, store=store, autoencoder=codec, parts=parts)
        shards = [parts / f"{shard}.json" for shard in range(how.shards)]
        latents.run(AutoencoderSettings(latents=how), store=store, autoencoder=codec, shards=shards, out=out)
    return out


def require_match(card: ModelCard, settings: OwnModel) -> None:
    """Raise UserError if the model cannot work on the images or latents that the settings describe."""
    channels, how = card.architecture.in_channels, settings.latents
    if how is None and channels not in (1, 3):
        raise UserError(
            f"the model works on {channels} channels: on latents, not on images; say whose (--vae, or the section "
            "latents)"
        )
    if how is not None and channels != how.channels:
        raise UserError(
            f"the model works on {channels} channels, latents of {how.folder or how.hub} have {how.channels}; take "
            "another autoencoder, or none (--vae, or the section latents)"
        )


def opened_store(path: Path, card: ModelCard) -> AnyStore:
    """The opened store. Raises UserError if its images or latents do not have the shape that the model works on."""
    store, a = open_store(path), card.architecture
    wanted = (a.in_channels, a.input_size, a.input_size)
    if store.manifest.shape != wanted:
        raise UserError(f"{path}: images of {store.manifest.shape}, the model takes {wanted}; prepare them again")
    return store


def decoder(settings: OwnModel, card: ModelCard, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """The function that makes images of the model's samples, or None if the samples are images.

    Raises UserError if nothing can make images of them.
    """
    require_match(card, settings)
    if settings.latents is None:
        return None
    with temporary_folder() as folder:
        fetch_autoencoder(settings.latents, folder)
        return load_autoencoder(folder, settings.latents, device).decode


def to_do(folder: Path, message: str) -> bool:
    """Whether a step has not been done yet. All processes wait here for the first, which has then done all before."""
    found: bool = parallel.said_by_first(missing(folder, message))
    return found


def require_processes(compute: Compute) -> None:
    """Raise UserError if there are not as many processes as are asked for. The command line starts them."""
    if compute.processes != parallel.count():
        raise UserError(
            f"compute asks for {compute.processes} processes, and this is one of {parallel.count()}; run the command "
            "entpruner prune, which starts them, or start your script with torchrun"
        )


def missing(folder: Path, message: str) -> bool:
    """Whether a step has not been done yet. If so, ``message`` is logged. A folder that exists is always complete."""
    if not folder.exists():
        log.info(message)
    return not folder.exists()


def claim(out: Path, asked: dict[str, Any]) -> None:
    """Write into ``out`` what it is for. Raises UserError if it is in use for something else."""
    note = out / "asked.json"
    if note.exists():
        before = read_json(note)
        if other := [key for key in asked if before.get(key) != asked[key]]:
            raise UserError(f"{out}: holds a pruning with another {', '.join(other)}; give another folder for this one")
    elif out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out}: holds something else already; give a folder that is new or empty")
    write_json(note, asked)


def digest(network: BlockNetwork) -> str:
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
