"""Words for the identifiers of a study: what people read in tables, figures and pages."""

NAMES = {
    "artbench": "ArtBench",
    "ced": "CED",
    "cub": "CUB",
    "dit": "DiT",
    "imagenet": "ImageNet",
    "ld": "LD",
    "ntk": "NTK",
    "sit": "SiT",
    "unet": "U-Net",
    "xl": "XL",
    "zico": "ZiCo",
}
"""The parts of identifiers that are names, as their authors write them."""


def spoken(identifier: str) -> str:
    """An identifier as words: ``dit`` is DiT, and ``sit_xl`` is SiT XL."""
    return " ".join(NAMES.get(part, part) for part in identifier.split("_"))


def sentence(text: str) -> str:
    """The text with a capital letter at its start."""
    return text[:1].upper() + text[1:]
