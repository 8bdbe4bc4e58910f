"""What no single section of a study can know alone: where sections contradict each other."""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from pydantic import ValidationError

from entpruner.params.arms import ArmSpec
from entpruner.params.audit import Audit
from entpruner.params.backbones import Diffusion
from entpruner.params.base import listed, merge
from entpruner.params.latents import Autoencoder
from entpruner.params.pruning import blocks_to_remove
from entpruner.params.reporting import ArmsFigure, ScoresFigure
from entpruner.params.study import Study


class Problem(NamedTuple):
    """Something wrong in a params file."""

    loc: tuple[str | int, ...]
    """Key path."""
    given: Any
    allowed: str
    choices: tuple[str, ...] = ()
    """The names to choose from, if there are such."""
    needs: tuple[tuple[str | int, ...], ...] = ()
    """Other key paths that must be sound for this to be a problem at all."""


def problems(study: Study) -> Iterator[Problem]:
    """Where the sections of a study contradict each other. Overrides of arms must be valid in themselves."""
    if "upstream" not in study.datasets:
        yield Problem(("datasets", "upstream"), None, "the backbones are pre-trained on a data set of this name")
    yield from _unknown_names(study)
    if study.latents:
        yield from _unfit_for_latents(study, study.latents)
    yield from _misfits(study)
    yield from _foreign_shapes(study)
    yield from _unshared_batches(study)
    for name, arm in study.arms.items():
        for backbone in listed(arm.backbone):
            if backbone in study.backbones:
                yield from _impossible_arm(study, name, arm, backbone)
    if study.audit:
        yield from _impossible_audit(study, study.audit)


def _unknown_names(study: Study) -> Iterator[Problem]:
    said: list[tuple[tuple[str | int, ...], Any]] = []  # (where, one name or several)
    for name, arm in study.arms.items():
        said += [(("arms", name, key), getattr(arm, key)) for key in ("backbone", "data")]
    said += [(("tables", name, "arms"), table.arms) for name, table in study.tables.items()]
    for name, figure in study.figures.items():
        keys = ("data", "backbones") if isinstance(figure, ScoresFigure) else ("arms",)
        said += [(("figures", name, key), getattr(figure, key)) for key in keys]
    if study.audit:
        said += [(("audit", key), getattr(study.audit, key)) for key in ("backbones", "data")]
    shown = [("tables", name, table.only) for name, table in study.tables.items()]
    shown += [
        ("figures", name, figure.only) for name, figure in study.figures.items() if isinstance(figure, ArmsFigure)
    ]
    for kind, name, only in shown:
        said += [((kind, name, "only", key), getattr(only, key) or ()) for key in ("backbone", "data")]

    sections = {"data": "datasets", "backbone": "backbones"}
    for loc, value in said:
        section = sections.get(str(loc[-1]), str(loc[-1]))
        known = getattr(study, section)
        for name in listed(value):
            if name not in known:
                allowed = f"a name from {section} ({', '.join(known)})"
                yield Problem(loc, name, allowed, tuple(known), needs=((section, name),))


def _unfit_for_latents(study: Study, latents: Autoencoder) -> Iterator[Problem]:
    """What can't be encoded, or asks for more than latents can give."""
    for name, images in study.datasets.items():
        if images.channels != 3:
            allowed = "RGB images, which the autoencoder of latents takes; or no section latents"
            yield Problem(("datasets", name), f"channels {images.channels}", allowed)
        if images.image_size % latents.factor:
            allowed = f"a multiple of {latents.factor}, which is latents.factor"
            yield Problem(("datasets", name, "image_size"), images.image_size, allowed)
    trainings: dict[tuple[str, ...], dict[str, Any]] = {
        (section,): getattr(study, section).model_dump() for section in ("pretrain", "adapt", "finetune")
    }
    trainings |= {("arms", name, "override", "finetune"): arm.override.finetune for name, arm in study.arms.items()}
    for loc, training in trainings.items():
        if training.get("horizontal_flip") and not latents.mirror:
            allowed = "false; or latents.mirror true, for the latents of mirror images"
            yield Problem((*loc, "horizontal_flip"), True, allowed)


def _misfits(study: Study) -> Iterator[Problem]:
    """Backbones that cannot take the images they are meant for."""
    pairs = set(product(study.backbones, ["upstream"]))
    for arm in study.arms.values():
        pairs.update(product(listed(arm.backbone), listed(arm.data)))
    if study.audit:
        pairs.update(product(study.audit.backbones, [study.audit.data]))
    for backbone, data in sorted(pairs):
        if backbone in study.backbones and data in study.datasets:
            channels, side = study.input_shape(data)
            try:
                study.backbones[backbone].architecture(side, channels, num_classes=1)
            except ValidationError as error:
                allowed = f"sizes that fit the images of {data}: {error.errors()[0]['ctx']['error']}"
                shape = study.backbones[backbone].shape
                yield Problem(("backbones", backbone), shape, allowed, needs=(("latents",),))


def _foreign_shapes(study: Study) -> Iterator[Problem]:
    """Data sets whose images a backbone that was pre-trained upstream cannot take."""
    if "upstream" in study.datasets:
        upstream = study.datasets["upstream"]
        for name, images in study.datasets.items():
            for key in ("image_size", "channels"):
                given, needed = getattr(images, key), getattr(upstream, key)
                if given != needed:
                    allowed = f"{key} {needed} as upstream has, which the backbones are pre-trained on"
                    yield Problem(("datasets", name), f"{key} {given}", allowed, needs=(("datasets", "upstream"),))


def _unshared_batches(study: Study) -> Iterator[Problem]:
    """Batches that the processes cannot share as their training asks."""
    compute, finetune = study.compute, study.finetune.model_dump()
    trainings: dict[tuple[str, ...], dict[str, Any]] = {
        (key,): getattr(study, key).model_dump() for key in ("pretrain", "adapt", "finetune")
    }
    for name, arm in study.arms.items():
        if arm.override.finetune.keys() & {"batch_size", "distillation"}:
            trainings["arms", name, "override", "finetune"] = merge(finetune, arm.override.finetune)
    for loc, training in trainings.items():
        batch_size, teacher = training["batch_size"], training.get("distillation")
        if batch_size % compute.processes:
            allowed = f"a multiple of {compute.processes}: so many processes (compute.gpus times nodes) share it evenly"
            yield Problem((*loc, "batch_size"), batch_size, allowed, needs=(loc[:2], ("compute",)))
        elif teacher is not None and teacher.get("features") != 0 and compute.in_pieces(batch_size):
            allowed = "none with finetune.distillation.features above 0, which compares whole batches of hidden states"
            yield Problem(("compute", "micro_batch"), compute.micro_batch, allowed, needs=(loc[:2], ("compute",)))


def _impossible_arm(study: Study, name: str, arm: ArmSpec, backbone: str) -> Iterator[Problem]:
    def place(section: str, key: str) -> tuple[str, ...]:
        overridden = key in getattr(arm.override, section, {})
        return ("arms", name, "override", section, key) if overridden else (section, key)

    def setting(section: str) -> dict[str, Any]:
        return merge(getattr(study, section).model_dump(), getattr(arm.override, section))

    network, process = study.backbones[backbone], study.backbones[backbone].process
    if network.unet is not None:
        allowed = "a transformer: U-Nets are audited only, as proxies, cost and methods know transformers alone"
        yield Problem(("arms", name, "backbone"), backbone, allowed, needs=(("backbones", backbone),))
        return
    kept = setting("sampling")["diffusion"]["steps"]
    if isinstance(process, Diffusion) and kept > process.timesteps:
        loc = (*place("sampling", "diffusion"), "steps")
        allowed = f"at most the {process.timesteps} timesteps of backbone {backbone}"
        yield Problem(loc, kept, allowed, needs=(("arms", name), ("backbones", backbone), ("sampling",)))

    here = (("arms", name), ("finetune",))
    method = setting("finetune")["method"]
    if arm.schedule != "none" and method != "full":
        allowed = f"full: arm {name} is pruned, and its other weights must be free to make up for it"
        yield Problem(place("finetune", "method"), method, allowed, needs=here)
    if arm.start == "pretrained":
        begin = (("arms", name, "start"), arm.start)
        if arm.schedule != "none":
            yield Problem(*begin, f"adapted: arm {name} is pruned, by scores of the adapted network", needs=here)
        elif setting("finetune")["distillation"] is not None and listed(arm.data) != ("upstream",):
            allowed = f"adapted, or no finetune.distillation for arm {name}: a teacher must know the data's classes"
            yield Problem(*begin, allowed, needs=here)
    pruning, steps = setting("pruning"), setting("finetune")["steps"]
    staged = arm.schedule in ("linear", "vote", "random_vote")
    needs = (("arms", name), ("backbones", backbone), ("pruning",), ("finetune",))
    if staged and pruning["fraction"] * steps < pruning["stages"]:
        share = f"the {steps} steps of finetune times pruning.fraction {pruning['fraction']}"
        allowed = f"at most {share} for arm {name}: a stage takes a step or more"
        yield Problem(place("pruning", "stages"), pruning["stages"], allowed, needs=needs)
    for ratio in listed(arm.ratio) if arm.schedule != "none" else ():
        depth = network.blocks
        removable = blocks_to_remove(depth, ratio)
        if not 0 < removable < depth:
            allowed = f"a ratio that removes 1 to {depth - 1} of the {depth} blocks of {backbone}, not {removable}"
            yield Problem(("arms", name, "ratio"), ratio, allowed, needs=(("backbones", backbone),))
        elif staged and pruning["stages"] > removable:
            allowed = f"no more stages than removable blocks: arm {name} removes {removable} of {depth} ({backbone})"
            yield Problem(place("pruning", "stages"), pruning["stages"], allowed, needs=needs)


def _impossible_audit(study: Study, audit: Audit) -> Iterator[Problem]:
    ratios: dict[tuple[str | int, ...], float] = {
        ("audit", "regime", "candidates", i, "ratio"): regime.ratio for i, regime in enumerate(audit.regime.candidates)
    }
    ratios |= {("audit", "proxies", "ratios", i): ratio for i, ratio in enumerate(audit.proxies.ratios)}
    for (loc, ratio), backbone in product(ratios.items(), audit.backbones):
        if backbone in study.backbones:
            depth = study.backbones[backbone].blocks
            removable = blocks_to_remove(depth, ratio)
            if not 0 < removable < depth:
                allowed = f"a ratio that removes 1 to {depth - 1} of the {depth} blocks of {backbone}, not {removable}"
                yield Problem(loc, ratio, allowed, needs=(("backbones", backbone),))
