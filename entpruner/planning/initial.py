"""A study of images of one's own to begin with: sizes that fit the images, arms that fit the network."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median

from entpruner.data.archives import Entry, opened
from entpruner.data.images import decode, is_picture
from entpruner.errors import UserError
from entpruner.params.datasets import ClassFolders, ImageFolder
from entpruner.study.images import images_of

SIDES = (32, 16, 8)
"""Sides of the stored images, in pixels: a network for one of these trains on a CPU."""
LOOKED_AT = 32  # images whose sizes are looked at
TEXT = """\
# A study of {images}: entpruner params init wrote it. docs/reference/params.md describes every key.
#   entpruner plan {file}                                what it will cost
#   snakemake --cores all --configfile {file}            run it; the tables and figures are then in results/{name}
study: {name}
seeds: [0]    # [0, 1, 2] shows how far the results spread

datasets:    # {train} images to train on, {test} held out, in {classes} classes
  upstream: {dataset}

backbones:    # a small SiT; a DiT has the process {{kind: diffusion}}
  sit: {{process: {{kind: flow}}, depth: 8, hidden_size: 128, num_heads: 4, patch_size: {patch}}}

pretrain: {{steps: 2000, batch_size: 32, learning_rate: 1.0e-3, warmup_steps: 100, decay: cosine}}
adapt: {{steps: 500, batch_size: 32, learning_rate: 1.0e-3}}    # only for arms on another data set than upstream
finetune: {{steps: 400, batch_size: 32, learning_rate: 5.0e-4, warmup_steps: 20, decay: cosine}}

pruning: {{stages: 4}}    # half of 8 blocks go, one a stage if the vote goes evenly
scoring: {{draws: 256, ld_pruner_samples: 16}}
sampling: {{samples: {samples}, batch_size: 64, flow: {{name: heun, steps: 12}}}}
evaluation: {{neighbours: {neighbours}}}

arms:
  unpruned: {{label: unpruned, backbone: sit, data: upstream}}
  entpruner: {{label: EntPruner, backbone: sit, data: upstream, criterion: ced, schedule: vote, ratio: 0.5}}
  random: {{label: random blocks, backbone: sit, data: upstream, criterion: random, schedule: one_shot, ratio: 0.5}}

tables:
  table1: {{caption: "{name}: half of the blocks removed", arms: [unpruned, entpruner, random]}}

figures:
  samples: {{kind: samples, caption: "Samples from the same noise", arms: [unpruned, entpruner, random]}}
  curves: {{kind: curves, caption: "Training curves", arms: [unpruned, entpruner, random]}}
  ced_by_block: {{kind: ced_by_block, caption: "CED block by block", data: upstream, backbones: [sit]}}
  kept_blocks: {{kind: kept_blocks, caption: "The blocks that are left", arms: [entpruner, random]}}
"""


def initial_study(images: Path, name: str) -> str:
    """The text of a params file for a folder or archive of ``<class>/*.jpg``, or of train/ and val/ with such folders.

    Raises UserError if there are no images, if one that is looked at is none, or if there are too few or one class.
    """
    if not name.isidentifier() or name != name.lower():
        raise UserError(f"{name}: the name of a study; allowed: small letters, digits and underscores, a letter first")
    if not (images.is_file() or images.is_dir()):
        raise UserError(f"{images}: no such file or folder; give a folder of <class>/*.jpg or .png")
    with opened(images) as entries:
        side = side_of(entries)
        split = {"train", "val"} <= {entry.path.parts[0] for entry in entries if entry.path.parts}
    kind = ImageFolder(source="image_folder", path=str(images), image_size=side) if split else None
    found = images_of(kind or ClassFolders(source="class_folders", path=str(images), image_size=side))
    if found.classes < 2:
        raise UserError(
            f"{images}: images of one class; allowed: two or more, because distances are measured by a classifier. "
            "The command entpruner prune takes images of one class"
        )
    if found.test < 8:
        raise UserError(f"{images}: {found.test} images would be held out; allowed: 8 or more, so add images")
    source = "image_folder" if split else "class_folders"
    held = "" if split else ", test_fraction: 0.2"
    return TEXT.format(
        images=images,
        file=f"{name}.yaml",
        name=name,
        train=found.train,
        test=found.test,
        classes=found.classes,
        dataset=f"{{source: {source}, path: {str(images)!r}, image_size: {side}{held}}}",
        patch=max(side // 8, 2),
        samples=max(256 // found.classes, 1) * found.classes,
        neighbours=min(3, found.test // 2 - 1),
    )


def side_of(entries: Sequence[Entry]) -> int:
    """The largest of ``SIDES`` that half of the images have, of those that are looked at; the smallest for none."""
    pictures = islice(filter(is_picture, entries), LOOKED_AT)
    short = [min(decode(entry.read, entry.name).size) for entry in pictures if entry.read]
    return next((side for side in SIDES if short and side <= median(short)), SIDES[-1])
