"""What no section of a study can know alone: overrides that do not fit, and where sections contradict each other."""

from collections.abc import Container, Iterator
from math import prod
from typing import Any

from pydantic import ValidationError

from entpruner.params.arms import IN_PARTS, ArmSpec
from entpruner.params.backbones import Diffusion
from entpruner.params.base import listed, merge, overridden
from entpruner.params.compute import Compute
from entpruner.params.messages import Loc, Problem, got, validated
from entpruner.params.pruning import blocks_to_remove
from entpruner.params.study import OwnModel, Study
from entpruner.params.training import Finetuning, Training

ARMS = 2000
"""The most rows, seed by seed, that one arm's grid may have."""
NAMED = {"data": "datasets", "backbone": "backbones", "backbones": "backbones", "arms": "arms"}
"""Keys of arms, tables, figures and the audit whose values are names, and the sections that give these names."""


def overrides(study: Study) -> Iterator[Problem]:
    """What is wrong in the overrides of arms and of audited criteria, each laid over its section."""
    overlays: dict[Loc, dict[str, Any]] = {
        ("arms", name, "override", section): overlay
        for name, arm in study.arms.items()
        for section, overlay in arm.override
    }
    if study.audit:
        overlays |= {("audit", "criteria", name, "scoring"): one.scoring for name, one in study.audit.criteria.items()}
    for loc, overlay in overlays.items():
        section = getattr(study, str(loc[-1]))
        for problem in validated(type(section), merge(section.model_dump(mode="json"), overlay), loc)[1]:
            yield problem._replace(needs=(loc[-1:],))


def contradictions(study: Study) -> Iterator[Problem]:
    """Where the sections of a study contradict each other. Overrides must be valid in themselves."""
    for section in ("arms", "tables", "figures", "effects", "audit"):
        yield from _unknown_names(study, study.model_dump(include={section}))
    unfit = [*_unfit_images(study)]
    yield from unfit
    if not any(problem.loc[:2] == ("datasets", "upstream") for problem in unfit):
        yield from _misfits(study)
    yield from _unfit_frames(study)
    yield from _unfit_trainings(study)
    yield from _unmonitored(study)
    yield from _impossible_ratios(study)
    yield from _too_many(study)
    for name in study.effects:
        yield from _not_crossed(study, name)
    for name, arm in study.arms.items():
        yield from _contrary_arm(study, name, arm)
        for backbone in study.backbones.keys() & listed(arm.backbone):
            yield from _impossible_on(study, name, arm, backbone)


def _unknown_names(study: Study, values: dict[str, Any], place: Loc = ()) -> Iterator[Problem]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _unknown_names(study, value, (*place, key))
        elif key in NAMED and value is not None:
            section = NAMED[key]
            known = getattr(study, section)
            for name in listed(value):
                if name not in known:
                    says = got(name, f"a name from {section} ({', '.join(known)})", known)
                    yield Problem((*place, key), says, needs=((section, name),))


def _unfit_images(study: Study) -> Iterator[Problem]:
    """Data sets that the autoencoder cannot encode, or whose images are not like those of pre-training."""
    upstream = study.datasets.get("upstream")
    if upstream is None:
        says = "got nothing; the backbones are pre-trained on a data set of this name"
        yield Problem(("datasets", "upstream"), says)
    for name, images in study.datasets.items():
        here = ("datasets", name)
        if study.latents and images.channels != 3:
            allowed = "RGB images, which the autoencoder of latents takes; or no section latents"
            yield Problem(here, got(f"channels {images.channels}", allowed))
        if study.latents and images.image_size % study.latents.factor:
            allowed = f"a multiple of {study.latents.factor}, which is latents.factor"
            yield Problem((*here, "image_size"), got(images.image_size, allowed))
        for key in ("image_size", "channels"):
            given, needed = getattr(images, key), getattr(upstream or images, key)
            if given != needed:
                allowed = f"{key} {needed} as upstream has, which the backbones are pre-trained on"
                yield Problem(here, got(f"{key} {given}", allowed), needs=(("datasets", "upstream"),))


def _unfit_frames(study: Study) -> Iterator[Problem]:
    """Feature nets of clips for images, or of images for clips, and columns of motion that nothing measures."""
    evaluation, clips = study.evaluation, {name: getattr(data, "frames", None) for name, data in study.datasets.items()}
    for name, net in evaluation.extractors.items():
        for data in study.datasets:
            if (net.kind == "motion" and not clips[data]) or (net.kind in ("inception", "torchvision") and clips[data]):
                allowed = f"a net for {'clips' if clips[data] else 'images'}, which data set {data} has"
                yield Problem(("evaluation", "extractors", name, "kind"), got(net.kind, allowed), (("datasets", data),))
    if evaluation.classifier.by_frame and not all(clips.values()):
        yield Problem(("evaluation", "classifier", "by_frame"), got(True, "false, as there are images, without frames"))
    for name, table in study.tables.items():
        if "motion" in table.columns and "motion" not in evaluation.extractors:
            allowed = "other columns, or an extractor motion of kind motion under evaluation.extractors"
            yield Problem(("tables", name, "columns"), got("motion", allowed), (("evaluation",),))


def _misfits(study: Study) -> Iterator[Problem]:
    """Backbones that cannot take the images of upstream. All other data sets must have images of the same shape."""
    channels, side = study.input_shape("upstream")
    frames = getattr(study.datasets["upstream"], "frames", None)
    for name, backbone in study.backbones.items():
        if backbone.diffusers and backbone.diffusers.frames not in (None, frames):
            allowed = f"{frames}, as the clips of upstream have" if frames else "no frames, as upstream has images"
            loc = ("backbones", name, "diffusers", "frames")
            yield Problem(loc, got(backbone.diffusers.frames, allowed), needs=(("datasets", "upstream"),))
            continue
        try:
            backbone.architecture(side, channels, num_classes=1)
        except ValidationError as error:
            allowed = f"sizes that fit the images: {error.errors()[0]['ctx']['error']}"
            yield Problem(
                ("backbones", name), got(backbone.shape, allowed), needs=(("latents",), ("datasets", "upstream"))
            )


def _unfit_trainings(study: Study) -> Iterator[Problem]:
    """Trainings that ask of latents or of the processes what these cannot give."""
    mirrored = study.latents is None or study.latents.mirror
    for section in ("pretrain", "adapt", "finetune"):
        yield from unfit((section,), getattr(study, section), Finetuning.model_fields, study.compute, mirrored)
    for name, arm in study.arms.items():
        mine = arm.override.finetune
        training = overridden(study.finetune, mine)
        yield from unfit(("arms", name, "override", "finetune"), training, mine, study.compute, mirrored)


def unfit_own_trainings(own: OwnModel) -> Iterator[Problem]:
    """Trainings of a model of one's own that ask of latents or of the processes what these cannot give."""
    for section in ("adapt", "finetune"):
        mirrored = own.latents is None or own.latents.mirror
        yield from unfit((section,), getattr(own, section), Finetuning.model_fields, own.compute, mirrored)


def unfit(loc: Loc, training: Training, given: Container[str], compute: Compute, mirrored: bool) -> Iterator[Problem]:
    """What a training at ``loc`` asks in vain; ``given`` are its keys that are given there, the rest is told elsewhere.

    ``mirrored`` says whether there are mirror images of what it trains on.
    """
    needs = (loc[:2], ("finetune",), ("compute",))
    teacher = training.distillation if isinstance(training, Finetuning) else None
    if "horizontal_flip" in given and training.horizontal_flip and not mirrored:
        allowed = "false; or latents.mirror true, for the latents of mirror images"
        yield Problem((*loc, "horizontal_flip"), got(True, allowed))
    if "optimizer" in given and training.optimizer == "muon" and compute.sharding == "full":
        allowed = "adamw or sgd with compute.sharding full: it cuts matrices apart, and Muon needs them whole"
        yield Problem((*loc, "optimizer"), got("muon", allowed), needs)
    if "monitor" in given and training.monitor and compute.sharding == "full":
        allowed = "none with compute.sharding full, where no process has the whole network"
        yield Problem((*loc, "monitor"), got({"every": training.monitor.every}, allowed), needs)
    if isinstance(training, Finetuning) and training.monitor and training.method != "full":
        allowed = f"none with method {training.method}: the proxies differentiate by all weights"
        yield Problem((*loc, "monitor"), got({"every": training.monitor.every}, allowed), needs)
    if "batch_size" in given and training.batch_size % compute.processes:
        allowed = f"a multiple of {compute.processes}: so many processes (compute.gpus times nodes) share it evenly"
        yield Problem((*loc, "batch_size"), got(training.batch_size, allowed), needs)
    elif teacher and teacher.features and compute.in_pieces(training.batch_size):
        allowed = "none with finetune.distillation.features above 0, which compares whole batches of hidden states"
        yield Problem(("compute", "micro_batch"), got(compute.micro_batch, allowed), needs)


def _unmonitored(study: Study) -> Iterator[Problem]:
    """Arms that a figure shows the readings of, and that are not monitored."""
    for figure, spec in study.figures.items():
        for name in spec.arms if spec.kind == "monitor" else ():
            arm = study.arms.get(name)
            if arm and overridden(study.finetune, arm.override.finetune).monitor is None:
                needs: tuple[Loc, ...] = (("arms", name), ("finetune",))
                yield Problem(("figures", figure, "arms"), got(name, "arms with a finetune.monitor"), needs)


def _impossible_ratios(study: Study) -> Iterator[Problem]:
    """Ratios that remove no block of a network, or all of them."""
    ratios: list[tuple[Loc, float, tuple[str, ...]]] = [
        (("arms", name, "ratio"), ratio, listed(arm.backbone))
        for name, arm in study.arms.items()
        for ratio in listed(arm.ratio or ())
    ]
    for name, arm in study.arms.items():
        monitor = overridden(study.finetune, arm.override.finetune).monitor
        if monitor and monitor.ratio is not None:
            loc = (*_given_at(name, arm, "finetune", "monitor"), "ratio")
            ratios.append((loc, monitor.ratio, listed(arm.backbone)))
    if audit := study.audit:
        place: Loc = ("audit", "regime", "candidates")
        ratios += [((*place, i, "ratio"), one.ratio, audit.backbones) for i, one in enumerate(audit.regime.candidates)]
        place = ("audit", "proxies", "ratios")
        ratios += [((*place, i), ratio, audit.backbones) for i, ratio in enumerate(audit.proxies.ratios)]
    for loc, ratio, backbones in ratios:
        for backbone in study.backbones.keys() & backbones:
            depth = study.backbones[backbone].blocks
            removed = blocks_to_remove(depth, ratio)
            if not 0 < removed < depth:
                allowed = f"a ratio that removes 1 to {depth - 1} of the {depth} blocks of {backbone}, not {removed}"
                yield Problem(loc, got(ratio, allowed), needs=(("backbones", backbone),))


def _too_many(study: Study) -> Iterator[Problem]:
    """More arms than any study needs, which lists of backbones, data sets, ratios and seeds multiply to."""
    for name, arm in study.arms.items():
        lists = (arm.backbone, arm.data, arm.ratio, arm.seeds or study.seeds)
        if (count := prod(len(listed(values)) for values in lists)) > ARMS:
            allowed = f"at most {ARMS:,} rows of a grid: backbones times data, ratios and seeds"
            yield Problem(("arms", name), got(f"{count:,} rows", allowed))


def _not_crossed(study: Study, name: str) -> Iterator[Problem]:
    """Effects of arms that are not pruned or have one seed, or of arms that all have one criterion and schedule."""
    asked, here = study.effects[name], ("effects", name, "arms")
    arms = {arm: study.arms[arm] for arm in asked.arms if arm in study.arms}
    needs: tuple[Loc, ...] = (("seeds",), ("effects", name), *(("arms", arm) for arm in arms))
    seeds = {arm: set(spec.seeds or study.seeds) for arm, spec in arms.items()}
    unpruned = [arm for arm, spec in arms.items() if spec.schedule == "none"]
    alone = [arm for arm in arms if len(seeds[arm].intersection(asked.only.seed or seeds[arm])) < 2]
    if unpruned:
        yield Problem(here, got(", ".join(unpruned), "arms that are pruned, by a criterion and a schedule"), needs)
    elif alone:
        allowed = "arms of two seeds or more, as intervals that are paired by seed need two"
        yield Problem(here, got(f"{', '.join(alone)} with one seed", allowed), needs)
    elif len({(spec.criterion, spec.schedule) for spec in arms.values()}) == 1:
        yield Problem(here, got(", ".join(arms), "arms of several criteria or schedules"), needs)


def _given_at(name: str, arm: ArmSpec, section: str, key: str) -> Loc:
    """The key path at which an arm's setting is given: in its override, or in the section."""
    return ("arms", name, "override", section, key) if key in getattr(arm.override, section) else (section, key)


def _contrary_arm(study: Study, name: str, arm: ArmSpec) -> Iterator[Problem]:
    """Settings of an arm that exclude each other, whatever its backbone is."""
    finetune, needs = overridden(study.finetune, arm.override.finetune), (("arms", name), ("finetune",))
    foreign = finetune.distillation is not None and listed(arm.data) != ("upstream",)
    if arm.schedule == "none":
        for key in ("criterion", "ratio"):
            if (value := getattr(arm, key)) is not None:
                allowed = "none without a schedule: one_shot, delayed, linear, vote or random_vote"
                yield Problem(("arms", name, key), got(value, allowed), needs[:1])
        if arm.start == "pretrained" and foreign:
            allowed = f"adapted, or no finetune.distillation for arm {name}: a teacher must know the data's classes"
            yield Problem(("arms", name, "start"), got(arm.start, allowed), needs)
        return
    if arm.criterion is None or arm.ratio is None:
        yield Problem(
            ("arms", name, "schedule"),
            got(arm.schedule, f"none; {arm.schedule} needs a criterion and a ratio"),
            needs[:1],
        )
    if finetune.method != "full":
        allowed = f"full: arm {name} is pruned, and its other weights must be free to make up for it"
        yield Problem(_given_at(name, arm, "finetune", "method"), got(finetune.method, allowed), needs)
    if arm.start == "pretrained":
        allowed = f"adapted: arm {name} is pruned, by scores of the adapted network"
        yield Problem(("arms", name, "start"), got(arm.start, allowed), needs)


def _impossible_on(study: Study, name: str, arm: ArmSpec, backbone: str) -> Iterator[Problem]:
    """What an arm asks of a backbone that it cannot give."""
    network, needs = study.backbones[backbone], (("arms", name), ("backbones", backbone))
    kept = overridden(study.sampling, arm.override.sampling).diffusion.steps
    if network.unet is not None:
        allowed = "a transformer: U-Nets are audited only, as proxies, cost and methods know transformers alone"
        yield Problem(("arms", name, "backbone"), got(backbone, allowed), needs[1:])
        return
    if network.diffusers is not None:
        yield from _impossible_on_stock(study, name, arm, backbone)
    if isinstance(network.process, Diffusion) and kept > network.process.timesteps:
        loc = (*_given_at(name, arm, "sampling", "diffusion"), "steps")
        allowed = f"at most the {network.process.timesteps} timesteps of backbone {backbone}"
        yield Problem(loc, got(kept, allowed), (*needs, ("sampling",)))
    if arm.schedule in ("delayed", "linear", "vote", "random_vote"):
        stages = _given_at(name, arm, "pruning", "stages")
        for says in _impossible_stages(study, arm, f"arm {name}", backbone):
            yield Problem(stages, says, (*needs, ("pruning",), ("finetune",)))


def _impossible_on_stock(study: Study, name: str, arm: ArmSpec, backbone: str) -> Iterator[Problem]:
    """What an arm asks of a transformer of diffusers that takes a network which can be run part by part."""
    needs = (("arms", name), ("backbones", backbone), ("finetune",), ("pruning",))
    finetune, why = overridden(study.finetune, arm.override.finetune), f"{backbone} is a transformer of diffusers"
    if arm.schedule == "vote":
        allowed = f"one_shot, delayed, linear or random_vote: {why}, which the proxies cannot measure"
        yield Problem(("arms", name, "schedule"), got(arm.schedule, allowed), needs[:2])
    if arm.criterion in IN_PARTS:
        allowed = f"another criterion: {why}, which this one cannot run part by part"
        yield Problem(("arms", name, "criterion"), got(arm.criterion, allowed), needs[:2])
    if finetune.method != "full":
        yield Problem(_given_at(name, arm, "finetune", "method"), got(finetune.method, f"full: {why}"), needs)
    if finetune.monitor is not None:
        loc = _given_at(name, arm, "finetune", "monitor")
        yield Problem(loc, got("monitor", f"none: {why}, which the proxies cannot measure"), needs)
    if finetune.distillation is not None:
        loc = _given_at(name, arm, "finetune", "distillation")
        yield Problem(loc, got("distillation", f"none: {why}, whose hidden states it cannot compare"), needs)


def _impossible_stages(study: Study, arm: ArmSpec, name: str, backbone: str) -> Iterator[str]:
    """What is said of stages of pruning without a step to train, or without a block to remove."""
    pruning, depth = overridden(study.pruning, arm.override.pruning), study.backbones[backbone].blocks
    steps = overridden(study.finetune, arm.override.finetune).steps
    if pruning.fraction * steps < pruning.stages:
        share = f"the {steps} steps of finetune times pruning.fraction {pruning.fraction}"
        yield got(pruning.stages, f"at most {share} for {name}: a stage takes a step or more")
    for removed in (blocks_to_remove(depth, ratio) for ratio in listed(arm.ratio or ())):
        if 0 < removed < min(depth, pruning.stages):
            allowed = f"no more stages than removable blocks: {name} removes {removed} of {depth} ({backbone})"
            yield got(pruning.stages, allowed)
