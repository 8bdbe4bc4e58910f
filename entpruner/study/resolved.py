"""A study with everything resolved that its rules ask about: arms, folders, and what each arm begins with."""

import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from entpruner.errors import UserError
from entpruner.layout import Artefact, Layout
from entpruner.params.backbones import Backbone
from entpruner.params.evaluation import ClassifierExtractor
from entpruner.params.files import DEFAULT_STUDY
from entpruner.params.origins import Origin, origins
from entpruner.params.study import Study
from entpruner.sizes.work import Network
from entpruner.study.arms import Arm, expand, select
from entpruner.study.images import Images, known_images


class ResolvedStudy:
    """A study as its rules see it, from the params files that it was read from.

    ``images`` are the counted sizes of its data sets; without them no disk is looked at, and what is not known of a
    data set is assumed.
    """

    def __init__(self, params: Study, files: Sequence[Path] = (), images: Mapping[str, Images] | None = None) -> None:
        self.params, self.files = params, files
        self.arms = expand(params)
        self.paths = Layout(params.study)
        self.images = images or {name: known_images(dataset) for name, dataset in params.datasets.items()}
        self.compute = params.compute.settled

    @property
    def command(self) -> str:
        """What a reader types at the top of the repository to run the study; targets can follow it."""
        root = DEFAULT_STUDY.parents[1]
        given = [
            file.relative_to(root) if file.is_relative_to(root) else file
            for file in self.files
            if file != DEFAULT_STUDY
        ]
        return shlex.join(["snakemake", *(["--configfile", *map(str, given)] if given else []), "--cores", "all"])

    # ---------------------------------------------------------------------------------------------- files of others

    @cached_property
    def downloads(self) -> dict[str, Origin]:
        """What has to be downloaded, by the path that it will have."""
        return {origin.file: origin for origin in origins(self.params) if origin.url}

    def absent(self) -> list[str]:
        """Paths that the study names and where nothing lies.

        The source of a data set or of a backbone is needed only until the workflow has read it.
        """
        unread: list[Any] = [
            dataset for data, dataset in self.params.datasets.items() if not exists(self.paths.pixels(data))
        ]
        for name, backbone in self.params.backbones.items():
            if not all(exists(self.paths.pretrained(name, seed)) for seed in self.params.seeds):
                unread.append(backbone)
        paths = [origin.path for section in unread for origin in origins(section)]
        paths += [getattr(net, "weights", None) for net in self.params.evaluation.extractors.values()]
        paths.append(getattr(self.params.latents, "folder", None))
        return [path for path in paths if path and not Path(path).exists()]

    # ------------------------------------------------------------------------------------------------ data, networks

    def store(self, data: str) -> Artefact:
        """What networks are trained on: the pixels of a data set, or the latents of these."""
        return self.paths.latents(data) if self.params.latents else self.paths.pixels(data)

    def classifier(self, data: str) -> Artefact | None:
        """The data set's own classifier, where the study measures with it."""
        nets = self.params.evaluation.extractors.values()
        return self.paths.classifier(data) if any(isinstance(net, ClassifierExtractor) for net in nets) else None

    def autoencoder(self) -> Artefact | None:
        return self.paths.autoencoder() if self.params.latents else None

    def network(self, backbone: str, data: str) -> Network:
        """The shape of a backbone on the images of a data set."""
        shape, (channels, size) = self.params.backbones[backbone], self.params.input_shape(data)
        classes = max(self.images[data].classes, 1)  # the number is not known before the data are there
        return Network(shape.architecture(size, channels, classes), shape.process, shape.blocks)

    def require_networks(self) -> None:
        """Raise UserError for a transformer of diffusers that cannot be built, or that does not do for a study.

        It is tried without memory for its weights. Only studies of such networks load PyTorch and diffusers for that.
        """
        for name, backbone in self.params.backbones.items():
            if backbone.diffusers is not None:
                try:
                    self.network(name, "upstream").parameters(1)
                except UserError as error:
                    raise UserError(f"backbones.{name}.diffusers: {error}") from None

    def imported(self, *, from_checkpoint: bool) -> dict[str, Backbone]:
        """The backbones whose weights come from a checkpoint, or the others."""
        return {name: net for name, net in self.params.backbones.items() if bool(net.checkpoint) == from_checkpoint}

    def start(self, backbone: str, data: str, seed: int) -> Artefact:
        """The network that all arms on a data set begin with."""
        if data == "upstream":
            return self.paths.pretrained(backbone, seed)
        return self.paths.adapted(backbone, data, seed)

    # ---------------------------------------------------------------------------------------------------------- arms

    def arm_start(self, arm: Arm) -> Artefact:
        """The network that an arm begins with."""
        return self.start(arm.backbone, "upstream" if arm.start == "pretrained" else arm.data, arm.seed)

    def before(self, arm: Arm, stage: int) -> Artefact:
        """The network that a stage of an arm begins with; the recovery counts as the last stage."""
        return self.arm_start(arm) if stage == 1 else self.paths.stage(arm.key, stage - 1)

    def arms_of(self, backbone: str, data: str) -> list[Arm]:
        return [arm for arm in self.arms.values() if (arm.backbone, arm.data) == (backbone, data)]

    def shown(self, table: str) -> list[Arm]:
        """The arms of a table, in the order of its rows."""
        return select(self.arms.values(), self.params.tables[table])

    def distance(self) -> str:
        """The metric that tables show: that of the study's first feature net."""
        name, net = next(iter(self.params.evaluation.extractors.items()))
        return "fid" if net.kind == "inception" else f"fd_{name}"


def exists(made: Artefact) -> bool:
    """Whether an artefact is there; every rule writes it whole or not at all."""
    return next(iter(made.files.values())).exists()


def timings(study: ResolvedStudy, arms: Sequence[Arm]) -> list[Path]:
    """The records of what it took to move the backbones of arms to their data, where that came before the arms."""
    starts = [study.arm_start(arm) for arm in arms if arm.adapted]
    return sorted({start.files["timing"] for start in starts})
