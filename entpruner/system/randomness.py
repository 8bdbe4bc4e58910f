"""Every random number comes from (seed, artefact, step), so a resumed or repeated run draws the same ones."""

import hashlib

import torch


def seed_of(*keys: int | str) -> int:
    """A 63-bit seed from any keys, the same on every machine: ``seed_of(study_seed, artefact, step)``."""
    return int.from_bytes(hashlib.sha256(repr(keys).encode()).digest()[:8], "big") >> 1


def generator(*keys: int | str) -> torch.Generator:
    """A CPU generator seeded by ``keys``. Draw on the CPU and move: the numbers then don't depend on the device."""
    return torch.Generator().manual_seed(seed_of(*keys))
