"""Random numbers. Each follows from (seed, artefact, step), so a resumed or repeated run draws the same numbers."""

import hashlib

import torch


def seed_of(*keys: int | str) -> int:
    """A seed of 63 bits from any keys, as in ``seed_of(seed, artefact, step)``. It is the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(keys).encode()).digest()[:8], "big") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A generator on the CPU that ``keys`` seed. Numbers are drawn there and moved, so no device changes them."""
    return torch.Generator().manual_seed(seed_of(*keys))
