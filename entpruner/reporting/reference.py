"""What is publicly known of the paper's numbers: ``params/reference.yaml``, with its evidence."""

from itertools import chain
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.study.arms import ArmIdentity


class PaperNumber(Frozen):
    """One public number of the paper, and the rows and column that it belongs beside."""

    table: str
    match: dict[str, str | float | int | None] = Field(min_length=1)
    """Fields of ``ArmIdentity`` and the values that they must have."""
    column: Literal["distance", "speedup"]
    value: float
    form: str = "{}"
    """How the value is written: ``{}×``, or ``+{}`` for a difference."""
    scope: str | None = None
    """What the number belongs to where it isn't this very row; this text stands below the table."""
    evidence: tuple[str, ...] = Field(min_length=1)

    def __str__(self) -> str:
        return self.form.format(f"{self.value:g}") + ("*" if self.scope else "")

    def is_beside(self, arm: ArmIdentity) -> bool:
        """Whether it belongs beside the row of this arm, in its table."""
        return all(getattr(arm, field) == value for field, value in self.match.items())


class PaperNote(Frozen):
    tables: tuple[str, ...]
    text: str
    evidence: tuple[str, ...] = Field(min_length=1)


class Ours(Frozen):
    """Which number of a study stands beside a claim: one of its EntPruner arm, or a comparison with another arm."""

    quantity: Literal["speedup", "distance", "rise", "improvement"]
    """The rise is over the unpruned arm, the improvement over LD-Pruner's."""
    upstream: bool
    """On the upstream data, or on the others."""
    ratio: float


class Claim(Frozen):
    """One public number of the paper, which the audit gives a page of its own."""

    name: str = Field(pattern=r"^[a-z_]+$")
    says: str
    evidence: tuple[str, ...] = Field(min_length=1)
    takes: str
    """What it would take to check it."""
    arithmetic: tuple[str, ...]
    """What follows without any experiment."""
    ours: Ours


class Reference(Frozen):
    """``params/reference.yaml``."""

    paper: str
    scale: str
    """Why the paper's numbers must not be compared with ours by size."""
    evidence: dict[str, str]
    """Tag: what it stands for."""
    numbers: tuple[PaperNumber, ...]
    notes: tuple[PaperNote, ...] = ()
    claims: tuple[Claim, ...] = ()

    @model_validator(mode="after")
    def _known_names(self) -> "Reference":
        tagged: tuple[PaperNumber | PaperNote | Claim, ...] = (*self.numbers, *self.notes, *self.claims)
        tags = chain.from_iterable(entry.evidence for entry in tagged)
        if unknown := set(tags) - set(self.evidence):
            raise ValueError(f"evidence {', '.join(sorted(unknown))} is not explained under 'evidence'")
        for number in self.numbers:
            if unknown := set(number.match) - set(ArmIdentity.model_fields):
                raise ValueError(f"an arm has no field {', '.join(sorted(unknown))} to match")
        return self

    @staticmethod
    def read(path: Path) -> "Reference":
        """Raises UserError where the file doesn't hold together."""
        try:
            return Reference.model_validate(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "numbers and notes"
            raise UserError(f"{path}: {where}: {first['msg']}; correct it there") from None
