"""The public numbers of the paper, and the evidence for each: ``params/reference.yaml``."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from entpruner.errors import UserError
from entpruner.params.base import Frozen
from entpruner.params.documents import read_yaml
from entpruner.study.arms import ArmIdentity


class PaperNumber(Frozen):
    """A public number of the paper, with the rows and the column of our tables that it is shown beside."""

    table: str
    match: dict[str, str | float | int | None] = Field(min_length=1)
    """Fields of ``ArmIdentity`` -> the values that the arm of a row must have."""
    column: Literal["distance", "speedup"]
    value: float
    form: str = "{}"
    """The form in which the value is written, such as ``{}×``, or ``+{}`` for a difference."""
    scope: str | None = None
    """What the number is of, if not of exactly this row. The text is shown below the table."""
    evidence: tuple[str, ...] = Field(min_length=1)
    """Tags of the sources that the number is known from."""

    def __str__(self) -> str:
        return self.form.format(f"{self.value:g}") + ("*" if self.scope else "")

    def is_beside(self, arm: ArmIdentity) -> bool:
        """Whether the number is shown beside the row of this arm."""
        return all(getattr(arm, field) == value for field, value in self.match.items())


class PaperRows(Frozen):
    """What the rows of the paper's tables have in common. Its numbers stand beside no others."""

    depth: int
    distance: str

    def hold(self, distance: str, arms: Sequence[ArmIdentity]) -> bool:
        """Whether arms that are measured by ``distance`` are of the paper's kind."""
        return distance == self.distance and all(arm.depth == self.depth for arm in arms)


class PaperNote(Frozen):
    """A remark on the paper's numbers that is shown below some tables."""

    tables: tuple[str, ...]
    text: str
    evidence: tuple[str, ...] = Field(min_length=1)


class Ours(Frozen):
    """Which number of a study is shown for a claim. It is a number of the EntPruner arm, or a comparison with it."""

    quantity: Literal["speedup", "distance", "rise", "improvement"]
    """A rise is compared with the unpruned arm, and an improvement is compared with the LD-Pruner arm."""
    upstream: bool
    """Whether the arms are on the upstream data. If not, they are on all other data sets."""
    ratio: float


class Claim(Frozen):
    """A public number of the paper to which the audit gives a page of its own."""

    name: str = Field(pattern=r"^[a-z_]+$")
    says: str
    evidence: tuple[str, ...] = Field(min_length=1)
    takes: str
    """What a check of the claim would take."""
    arithmetic: tuple[str, ...]
    """What follows from arithmetic, without an experiment."""
    ours: Ours


class Reference(Frozen):
    """The content of ``params/reference.yaml``."""

    paper: str
    scale: str
    """Why the size of the paper's numbers cannot be compared with that of ours."""
    evidence: dict[str, str]
    """The tag of a source -> what it stands for."""
    rows: PaperRows
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
        """Read the file. Raises UserError if a key is wrong, or if a tag or a field of an arm does not exist."""
        try:
            return Reference.model_validate(read_yaml(path))
        except yaml.YAMLError as error:
            raise UserError(f"{path}: {' '.join(str(error).split())}; correct it there") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "numbers and notes"
            raise UserError(f"{path}: {where}: {first['msg']}; correct it there") from None
