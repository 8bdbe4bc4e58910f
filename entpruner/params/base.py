"""Types and helpers that the sections of a study share."""

import re
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

T = TypeVar("T")


def _without_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("a list without repeats")
    return values


def up_to(most: int, what: str) -> AfterValidator:
    """The limit of a number that decides how much a study is, far above what any study needs."""

    def within(value: int) -> int:
        if value > most:
            raise ValueError(f"at most {most:,} {what}")
        return value

    return AfterValidator(within)


def _in_one_line(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text):
        raise ValueError("text in one line, without control characters")
    return text


Line = Annotated[str, AfterValidator(_in_one_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", description="letters, digits and underscores")]
Positive = Annotated[int, Field(gt=0)]
Blocks = Annotated[Positive, up_to(1000, "blocks")]
Width = Annotated[Positive, up_to(65_536, "channels or features")]
Side = Annotated[Positive, up_to(16_384, "pixels")]
Processes = Annotated[Positive, up_to(1024, "processes")]
Ratio = Annotated[float, Field(gt=0, lt=1, description="share of blocks to remove: above 0, below 1")]
Seed = Annotated[int, Field(ge=0)]
Several = Annotated[  # a list with at least one entry, none of them twice
    tuple[T, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True}), AfterValidator(_without_repeats)
]
Named = Annotated[dict[Name, T], Field(json_schema_extra={"additionalProperties": False})]


class Frozen(BaseModel):
    """Immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def merge(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """``overlay`` laid over ``base``: nested mappings merge, anything else is replaced, as with --configfile."""
    merged = dict(base)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both else value
    return merged


Section = TypeVar("Section", bound=Frozen)


def overridden(section: Section, overlay: dict[str, Any]) -> Section:
    """The section with an arm's own keys laid over it."""
    return type(section).model_validate(merge(section.model_dump(), overlay))


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, behind its key path if it has one."""
    first = error.errors()[0]
    key, message = ".".join(map(str, first["loc"])), first["msg"]
    return f"{key}: {message}" if key else message


def listed(value: Any) -> tuple[Any, ...]:
    """One value or several, as several."""
    return value if isinstance(value, tuple) else (value,)
