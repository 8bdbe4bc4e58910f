"""What is wrong in a params file, in words: pydantic's errors, each with its key path and what is allowed instead."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import product
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
Loc = tuple[str | int, ...]

ALLOWED = {  # pydantic's error types, in words
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "too_short": "{min_length} or more entries",
    "too_long": "{max_length} or fewer entries",
    "string_pattern_mismatch": "text of the form {pattern}",
    "value_error": "{error}",
}
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "multipleOf": "a multiple of",
}

REACH = 10**12  # no study has more of anything; what decides about the number of jobs has limits of its own
TOLD = 100  # of pydantic's errors; more are put into words only once these are corrected


class Problem(NamedTuple):
    """Something wrong in a params file."""

    loc: Loc
    """Key path."""
    says: str
    """What was given, and what is allowed."""
    needs: tuple[Loc, ...] = ()
    """Other key paths that must be sound for this to be a problem at all."""

    def doubtful(self, found: "Sequence[Problem]") -> bool:
        """Whether another problem, once it is solved, may have solved this one."""
        pairs = product((self.loc, *self.needs), (problem.loc for problem in found))
        return any(all(a == b for a, b in zip(one, other, strict=False)) for one, other in pairs)


def got(given: Any, allowed: str, names: Iterable[str] = ()) -> str:
    """What was given and what is allowed, with a hint if it resembles one of the allowed names."""
    return f"got {short(given)}; allowed: {allowed}{_hint(given, names)}"


def short(value: Any) -> str:
    """A value as JSON, of 80 characters at most."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():  # it would break the line, or speak to the terminal
        text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def dotted(loc: Loc) -> str:
    """A key path in one line, with odd keys as JSON."""
    parts = map(str, loc)
    return ".".join(part if len(part) <= 80 and part.isprintable() else json.dumps(part[:80]) for part in parts)


def validated(model: type[Model], values: Any, place: Loc = ()) -> tuple[Model | None, list[Problem]]:
    """The values as a model; or None, and what is wrong with them, which stand at ``place`` in the file.

    As strict as JSON: text is no number, and a number is no truth value.
    """
    found: dict[Loc, str] = dict(_out_of_reach(values))
    try:
        valid = model.model_validate_json(json.dumps(values), strict=True)
        if not found:
            return valid, []
    except ValidationError as error:
        for detail in error.errors(include_url=False)[:TOLD]:
            loc, says = _said(model, values, detail)
            # A value that no member of a union takes is allowed in the form of each of them.
            found[loc] = f"{found[loc]}, or {says.partition('allowed: ')[2]}" if loc in found else says
    # A list or section around a wrong value is not reported too, for too few entries or for being no number.
    around = {loc[:length] for loc in found for length in range(len(loc))}
    return None, [Problem(place + loc, found[loc]) for loc in found if loc not in around]


def _out_of_reach(values: Any, place: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Whole numbers beyond ``REACH``, wherever they stand, each with what is said of it."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _out_of_reach(value, (*place, key))
    elif isinstance(values, int) and abs(values) > REACH:
        yield place, got(values, f"a whole number of at most {REACH:,}")


def _said(model: type[BaseModel], values: Any, detail: Any) -> tuple[Loc, str]:
    """The key path of one of pydantic's errors, and what was given and is allowed there."""
    kind, place, given, context = detail["type"], detail["loc"], detail["input"], detail.get("ctx", {})
    loc = _key_path(values, place)
    if kind == "missing":
        return (*loc, place[-1]), "got nothing; this key is required"
    if kind == "extra_forbidden":
        keys = _schema(model, place[:-1])["properties"]
        return loc, f"got an unknown key; allowed: the keys {', '.join(keys)}{_hint(loc[-1], keys)}"
    if kind.startswith("union_tag"):
        key = context["discriminator"].strip("'")
        loc, given = (*loc, key), given.get(key)
        if kind == "union_tag_not_found":
            return loc, "got nothing; this key is required"
    if names := re.findall(r"'([^']*)'", context.get("expected", context.get("expected_tags", ""))):
        return loc, got(given, ", ".join(names), names)
    if kind == "value_error" and given is None:  # a default that the rest of its section does not allow
        return (*loc[: len(place) - 1], place[-1]), f"got nothing; allowed: {context['error']}"
    if kind in ALLOWED:
        return loc, got(given, ALLOWED[kind].format(**context))
    node = _schema(model, place)
    allowed = _number(node) if node.get("type") in ("integer", "number") else detail["msg"]
    if isinstance(given, str) and re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", given, re.IGNORECASE):
        allowed += "; YAML takes this for text: write it out, or with a dot and a sign as in 1.0e-4"
    return loc, got(given, allowed)


def _hint(given: Any, names: Iterable[str]) -> str:
    near = get_close_matches(given, list(names), n=1) if isinstance(given, str) else []
    return f"; did you mean '{near[0]}'?" if near else ""


def _key_path(values: Any, place: Loc) -> Loc:
    """pydantic's place without the names of union members that it puts between the keys."""
    path: list[str | int] = []
    for part in place:
        if part in (values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()):
            path.append(part)
            values = values[part]
    return tuple(path)


def _schema(model: type[BaseModel], place: Loc) -> dict[str, Any]:
    """The JSON schema at one of pydantic's places. Where untagged forms are allowed, the schema of the first."""
    node = whole = _whole_schema(model)
    for part in place:
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif "properties" in node:
            node = node["properties"][part]
        elif "patternProperties" in node:
            [node] = node["patternProperties"].values()
        elif isinstance(part, int) and node.get("type") == "array":
            node = node["prefixItems"][part] if "prefixItems" in node else node["items"]
        node = node["anyOf"][0] if "anyOf" in node else node
        node = whole["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    return node


@cache
def _whole_schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _number(node: dict[str, Any]) -> str:
    """A number's schema in words."""
    kind = "a whole number" if node["type"] == "integer" else "a number"
    bounds = " and ".join(f"{word} {node[key]:g}" for key, word in BOUNDS.items() if key in node)
    return f"{kind} {bounds}".strip()
