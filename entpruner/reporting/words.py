"""Words for the identifiers of a study: what people read in tables, figures and pages."""

NAMES = {
    "artbench": "ArtBench",
    "ced": "CED",
    "cub": "CUB",
    "dit": "DiT",
    "imagenet": "ImageNet",
    "ld": "LD",
    "ld_pruner": "LD-Pruner",
    "ntk": "NTK",
    "sit": "SiT",
    "unet": "U-Net",
    "xl": "XL",
    "zico": "ZiCo",
}
"""Identifiers, and parts of them, that are names, as their authors write them."""


def spoken(identifier: str) -> str:
    """An identifier as words: ``dit`` is DiT, and ``sit_xl`` is SiT XL."""
    return NAMES.get(identifier) or " ".join(NAMES.get(part, part) for part in identifier.split("_"))


def sentence(text: str) -> str:
    """The text with a capital letter at its start."""
    return text[:1].upper() + text[1:]
