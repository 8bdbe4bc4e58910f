"""Where everything lies: the files of each kind of artefact, and the place of each artefact under results/<study>/.

No other module spells these names. Any argument may be a wildcard of Snakemake's, as in ``stage("{arm}", 2)``.
"""

import re
from pathlib import Path
from typing import NamedTuple

WEIGHTS, CARD = "model.safetensors", "model.json"
STATE, CURVE, TIMING = "train_state.safetensors", "curve.jsonl", "timing.json"
DECISION, SCORES, METRICS = "decision.json", "scores.json", "metrics.json"
MANIFEST, IMAGES, LABELS, MOMENTS, GRID = "manifest.json", "images.npy", "labels.npy", "moments.npy", "grid.png"
CHECKSUMS = ".checksums"
"""The file of a folder that was written as a whole, with the checksums of the other files in it."""
CODEC_WEIGHTS, CODEC_CONFIG = "diffusion_pytorch_model.safetensors", "config.json"

PIPELINE, PIPELINE_TRANSFORMER = "model_index.json", "transformer"
"""The file and the folder of a pipeline of diffusers."""
PRUNED, PRUNING, RECOVERY_STATE = "final", "entpruner.json", "recovery.safetensors"
README, COMPARED_PICTURES = "README.md", "compare.png"

MODEL = {"model": WEIGHTS, "card": CARD}
"""The files of a network, by the names that Snakemake's rules give them."""
TRAINED = MODEL | {"state": STATE, "curve": CURVE, "timing": TIMING}
"""The files that a training leaves, whose state another training can go on from."""


RESULTS = Path("results")
PUBLISHED, VERIFIED = RESULTS / "published", RESULTS / "verify"
BUNDLE, MACHINE, CURVES, COMPARED = "records.jsonl", "machine.json", "curves.csv", "dvc.yaml"
"""Files of a published study: its documents in one, the machine, the training curves, and what DVC compares."""
DETAIL = "detail.md"
"""What the page of the audit is the summary of."""
PROVENANCE = ".provenance.json"
"""The end of the name of the file in which a table says where its numbers come from."""

WILDCARD = re.compile(r"\{\w+\}")


class Artefact(NamedTuple):
    """What a rule makes and other rules read: a file, or a folder with certain files."""

    path: Path
    """What a command is given for it."""
    files: dict[str, Path]
    """Each file by the name that Snakemake's rules give it."""


def folder(path: Path, names: dict[str, str]) -> Artefact:
    return Artefact(path, {key: path / name for key, name in names.items()})


def file(path: Path) -> Artefact:
    return Artefact(path, {"file": path})


class Layout:
    """The artefacts of one study, whose folder lies within another one."""

    def __init__(self, study: str, within: Path = RESULTS) -> None:
        self.root = within / study
        self.arms, self.tables, self.figures = self.root / "arms", self.root / "tables", self.root / "figures"
        self.compared, self.audits = self.root / "effects", self.root / "audit"

    @staticmethod
    def at(root: Path) -> "Layout":
        """The artefacts of the study whose folder is ``root``."""
        return Layout(root.name, root.parent)

    def log(self, made: Artefact) -> Path:
        """The log of the command that makes an artefact. Jobs that write to one folder have a log for each file."""
        first = next(iter(made.files.values()))
        path = made.path if WILDCARD.findall(str(made.path)) == WILDCARD.findall(str(first)) else first
        inside = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return self.root / "logs" / inside.with_name(re.sub(r"\.(json|md)$", "", inside.name) + ".log")

    # ------------------------------------------------------------------------------------------------ data, networks

    def pixels(self, data: str) -> Artefact:
        return folder(self.root / "data" / data, {"manifest": MANIFEST, "images": IMAGES, "labels": LABELS})

    def latents(self, data: str) -> Artefact:
        return folder(self.root / "latents" / data, {"manifest": MANIFEST, "moments": MOMENTS, "labels": LABELS})

    def shard(self, data: str, shard: str | int) -> Artefact:
        """A shard of a data set's latents: its rows of a file that all shards share, and a note that they are there."""
        parts = self.root / "latents" / f"{data}.parts"
        return folder(parts, {"part": f"{shard}.json"})

    def autoencoder(self) -> Artefact:
        return folder(self.root / "autoencoder", {"weights": CODEC_WEIGHTS, "config": CODEC_CONFIG})

    def classifier(self, data: str) -> Artefact:
        return folder(self.root / "classifier" / data, MODEL | {"metrics": METRICS, "timing": TIMING})

    def pretrained(self, backbone: str, seed: str | int) -> Artefact:
        return folder(self.root / "pretrain" / f"{backbone}-s{seed}", TRAINED)

    def adapted(self, backbone: str, data: str, seed: str | int) -> Artefact:
        return folder(self.root / "adapt" / f"{backbone}-{data}-s{seed}", TRAINED)

    def scores(self, backbone: str, data: str, seed: str | int, scores: str) -> Artefact:
        path = self.root / "scores" / f"{backbone}-{data}-s{seed}" / scores
        return folder(path, {"scores": SCORES, "timing": TIMING})

    def cost(self, backbone: str, data: str) -> Artefact:
        return file(self.root / "cost" / f"{backbone}-{data}.json")

    # ---------------------------------------------------------------------------------------------------------- arms

    def arm(self, arm: str) -> Path:
        return self.arms / arm

    def stage(self, arm: str, stage: str | int) -> Artefact:
        """What a pruning stage of an arm, counted from 1, leaves."""
        return folder(self.arm(arm) / f"stage{stage}", TRAINED | {"decision": DECISION})

    def final(self, arm: str) -> Artefact:
        return folder(self.arm(arm) / "final", TRAINED)

    def cut(self, arm: str) -> Artefact:
        """The network right after the arm's last cut, before it is trained again."""
        return folder(self.arm(arm) / "cut", MODEL | {"timing": TIMING})

    def samples(self, arm: str, cut: str = "") -> Artefact:
        """Samples of the arm's final network, or of its ``cut`` one, where that is ``cut-``."""
        names = {"manifest": MANIFEST, "images": IMAGES, "labels": LABELS, "timing": TIMING, "grid": GRID}
        return folder(self.arm(arm) / f"{cut}samples", names)

    def metrics(self, arm: str, cut: str = "") -> Artefact:
        return file(self.arm(arm) / f"{cut}metrics.json")

    def metrics_timing(self, arm: str, cut: str = "") -> Artefact:
        return file(self.arm(arm) / f"{cut}metrics.timing.json")

    # ------------------------------------------------------------------------------------------------ what people read

    def table(self, table: str) -> Artefact:
        kinds = {kind: f"{table}.{kind}" for kind in ("md", "tex", "csv", "html")}
        return folder(self.tables, kinds | {"provenance": table + PROVENANCE})

    def figure(self, figure: str) -> Artefact:
        path = self.figures / figure
        return Artefact(path, {kind: path.with_name(f"{figure}.{kind}") for kind in ("png", "svg")})

    def effects(self, effects: str) -> Artefact:
        """The table and the figure of the effects of criterion and schedule."""
        path = self.compared / effects
        return Artefact(path, {kind: path.with_name(f"{effects}.{kind}") for kind in ("md", "csv", "png", "svg")})

    def story(self) -> Artefact:
        """The page that tells the story of the study, and its headline."""
        page = self.root / "index.html"
        return Artefact(page, {"page": page, "headline": self.root / "headline.txt"})

    def tracking(self) -> Artefact:
        return file(self.root / "tracking.json")

    def audit(self, part: str, backbone: str, seed: str | int | None = None) -> Artefact:
        """A part of the audit's evidence about a backbone; the regime is chosen once for all seeds."""
        of_seed = "" if seed is None else f"-s{seed}"
        return file(self.audits / part / f"{backbone}{of_seed}.json")

    def audit_report(self) -> Artefact:
        """The page of the audit, and its questions with their short answers. ``DETAIL`` lies beside them."""
        page = self.audits / "README.md"
        return Artefact(page, {"file": page, "summary": self.audits / "summary.json"})


WITHIN = Layout.at(Path())
"""Where the artefacts of a study lie within its folder."""

MLFLOW_DATABASE, MLFLOW_ARTEFACTS = RESULTS / "mlflow.db", RESULTS / "mlartifacts"
