"""Params files and overlays: read, merge, check, show. All that is wrong is said at once, by file and key path."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from entpruner.errors import UserError
from entpruner.params.arms import Override
from entpruner.params.base import merge
from entpruner.params.problems import Problem, problems
from entpruner.params.study import OwnModel, Study

PARAMS = Path(__file__).parents[2] / "params"
DEFAULT_STUDY, REFERENCE = PARAMS / "digits.yaml", PARAMS / "reference.yaml"

Model = TypeVar("Model", bound=BaseModel)
Loc = tuple[str | int, ...]

STAND_IN: dict[str, Any] = {  # for required sections that are not sound, while the others are checked
    "study": "x",
    "datasets": {},
    "backbones": {},
    "pretrain": {"steps": 1},
    "adapt": {"steps": 1},
    "finetune": {"steps": 1},
    "arms": {},
}

ALLOWED = {  # pydantic's error types, in words
    "missing": "this key is required",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "too_short": "at least {min_length} entry",
    "string_pattern_mismatch": "text of the form {pattern}",
    "literal_error": "{expected}",
    "union_tag_invalid": "{expected_tags}",
    "union_tag_not_found": "this key is required",
    "value_error": "{error}",
}
NUMBER = re.compile(r"int_|float_|finite_number|greater_than|less_than|multiple_of")  # errors that its schema explains
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "multipleOf": "a multiple of",
}


def read_study(files: Sequence[Path]) -> Study:
    """The study that params files describe, each laid over those before it.

    Raises UserError, one line a problem: file, key path, what was given, what is allowed, the nearest known name.
    """
    config: dict[str, Any] = {}
    for document in _load_all(files).values():
        config = merge(config, document)
    return check(*over_default(config, files))


def read_own_model(files: Sequence[Path], options: dict[str, Any] | None = None) -> OwnModel:
    """Settings for a model of one's own: the defaults, params files of such sections over them, then single options.

    Raises UserError as ``read_study`` does.
    """
    documents = _load_all(files)
    config = OwnModel().model_dump(mode="json")
    for document in (*documents.values(), options or {}):
        config = merge(config, json.loads(json.dumps(document, default=str)))
    settings, found = _validate(OwnModel, config)
    if settings is None:
        raise UserError("\n".join(dict.fromkeys(_line(problem, config, documents) for problem in found)))
    return settings


def over_default(config: dict[str, Any], files: Sequence[Path]) -> tuple[dict[str, Any], Sequence[Path]]:
    """A config without ``study`` (an overlay, or nothing) is laid over the default study, whose file goes first."""
    if "study" in config:
        return config, files
    [default] = _load_all([DEFAULT_STUDY]).values()
    return merge(default, config), [DEFAULT_STUDY, *files]


def check(config: dict[str, Any], files: Sequence[Path] = ()) -> Study:
    """The study of a config that Snakemake has merged from ``files``; raises UserError as ``read_study`` does."""
    documents = _load_all(files)
    config = json.loads(json.dumps(config, default=str))  # keys become text, dates too
    found = _validate(Study, config)[1]
    found += _overrides(_sound_part(config, found), found)
    study = _sound_part(config, found)
    damaged = [problem.loc for problem in found]
    for problem in problems(study):
        if not any(_overlap(loc, bad) for loc in (problem.loc, *problem.needs) for bad in damaged):
            found.append(problem)
    if found:
        raise UserError("\n".join(dict.fromkeys(_line(problem, config, documents) for problem in found)))
    return study


def show(study: Study) -> str:
    """The study as YAML with every default filled in; reading it gives the same study."""
    return yaml.dump(study.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def schema() -> dict[str, Any]:
    """JSON schema of a params file, for editors and for Snakemake's ``validate``.

    Defaults are told in the descriptions alone: ``validate`` would write them into the config, those of every branch
    of a union that it tries.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_plain(Study.model_json_schema())}


# ------------------------------------------------------------------------------------------------------ YAML in and out


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Lists on one line, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    list, lambda dumper, values: dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)
)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Unicode's own line breaks escaped: read back plain, they would be newlines."""
    style = '"' if set(text) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _text)


def _load_all(files: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    documents, wrong = {}, []
    for file in map(Path, files):
        try:
            document = yaml.load(file.read_bytes(), _Loader)  # noqa: S506 (a SafeLoader)
        except OSError as error:
            wrong.append(f"{file}: cannot be read ({error.strerror}); give the path of a params file")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            what = getattr(error, "problem", None) or str(error).splitlines()[0]
            wrong.append(f"{file}{line}: not valid YAML: {what}")
        else:
            if isinstance(document, dict) or document is None:
                documents[file] = document or {}
            else:
                wrong.append(f"{file}: got {_short(document)}; allowed: a mapping of keys to values")
    if wrong:
        raise UserError("\n".join(wrong))
    return documents


# ------------------------------------------------------------------------------------------------ finding what is wrong


def _validate(model: type[Model], values: Any, place: Loc = ()) -> tuple[Model | None, list[Problem]]:
    """Strict as JSON: no number from text, no truth from a number."""
    try:
        return model.model_validate_json(json.dumps(values), strict=True), []
    except ValidationError as error:
        found: dict[Loc, Problem] = {}
        for detail in error.errors(include_url=False):
            problem = _problem(model, values, detail)
            before = found.get(problem.loc)  # the same value as another member of a union would have it
            allowed = f"{before.allowed}, or {problem.allowed}" if before else problem.allowed
            found[problem.loc] = problem._replace(allowed=allowed)
        # a list whose entries are wrong is not itself wrong for being no number
        outer = {loc[:-1] for loc in found if loc and isinstance(loc[-1], int)}
        return None, [p._replace(loc=place + loc) for loc, p in found.items() if loc not in outer]


def _problem(model: type[BaseModel], values: Any, detail: Any) -> Problem:
    kind, raw, context = detail["type"], detail["loc"], detail.get("ctx", {})
    loc, given = _key_path(values, raw, absent=kind == "missing"), detail["input"]
    allowed = ALLOWED[kind].format(**context) if kind in ALLOWED else detail["msg"]
    choices: tuple[str, ...] = ()
    if kind == "extra_forbidden":
        choices = tuple(_node(model, raw[:-1])["properties"])
        return Problem(loc, _UnknownKey(loc[-1]), f"the keys {', '.join(choices)}", choices)
    if kind in ("literal_error", "union_tag_invalid"):
        choices = tuple(re.findall(r"'([^']*)'", allowed))
        allowed = ", ".join(choices)
    if kind.startswith("union_tag"):
        key = context["discriminator"].strip("'")
        loc, given = (*loc, key), given.get(key)
    if kind == "missing":
        given = None
    if NUMBER.match(kind):
        allowed = _number(_node(model, raw))
        if isinstance(given, str) and re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", given, re.IGNORECASE):
            allowed += "; YAML takes this for text: write it out, or with a dot and a sign as in 1.0e-4"
    return Problem(loc, given, allowed, choices)


class _UnknownKey(str):
    """What was given is a key, not a value."""


def _key_path(values: Any, raw: Loc, absent: bool) -> Loc:
    """pydantic's place without the names of union members that it puts between the keys."""
    path: list[str | int] = []
    for part in raw:
        if part in (values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ()):
            path.append(part)
            values = values[part]
    return (*path, raw[-1]) if absent else tuple(path)


def _node(model: type[BaseModel], place: Loc) -> dict[str, Any]:
    """The schema of what is at ``place`` (with its union tags), or of the union of plain values around it."""
    whole = model.model_json_schema()
    node = whole
    for part in place:
        if "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif "properties" in node:
            node = node["properties"][part]
        elif "patternProperties" in node:
            node = next(iter(node["patternProperties"].values()))
        node = next(
            (option for option in node.get("anyOf", []) if "$ref" in option), node
        )  # a section that may be null
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return node


def _number(node: dict[str, Any]) -> str:
    """The first number among a schema node, its alternatives and its items, in words; empty if there is none."""
    if node.get("type") in ("integer", "number"):
        kind = "a whole number" if node["type"] == "integer" else "a number"
        bounds = " and ".join(f"{word} {node[key]:g}" for key, word in BOUNDS.items() if key in node)
        return f"{kind} {bounds}".strip()
    inner = [*node.get("anyOf", []), *node.get("prefixItems", []), node.get("items", {})]
    return next(filter(None, map(_number, filter(None, inner))), "")


def _sound_part(config: dict[str, Any], found: Sequence[Problem]) -> Study:
    """The study without what is damaged, so that the rest can be checked: no more is left out than must be."""
    together = ("schedule", "criterion", "ratio")  # an arm without them is whole, and its names can still be checked
    sound = merge(STAND_IN, config)
    for depth in (None, 3, 2, 1):
        for loc in (problem.loc for problem in found):
            if depth is None and loc[0] == "arms" and (len(loc) == 2 or loc[2:3] in [(key,) for key in together]):
                for key in together:
                    sound = _without(sound, ("arms", loc[1], key))
            else:
                sound = _without(sound, loc[:depth])
        study, found = _validate(Study, merge(STAND_IN, sound))
        if study is not None:
            return study
    return Study.model_validate(STAND_IN)


def _without(values: Any, loc: Loc) -> Any:
    if not isinstance(values, dict) or loc[0] not in values:
        return values
    rest = {key: value for key, value in values.items() if key != loc[0]}
    return rest if len(loc) == 1 else {**values, loc[0]: _without(values[loc[0]], loc[1:])}


def _overrides(study: Study, found: Sequence[Problem]) -> list[Problem]:
    """What is wrong in the overrides of arms and of audited criteria, each laid over its section."""
    damaged = {problem.loc[0] for problem in found}
    wrong = []
    for name, arm in study.arms.items():
        for section in Override.model_fields:
            overlay, base = getattr(arm.override, section), getattr(study, section)
            if overlay and section not in damaged:
                merged = merge(base.model_dump(mode="json"), overlay)
                wrong += _validate(type(base), merged, ("arms", name, "override", section))[1]
    for name, audited in study.audit.criteria.items() if study.audit else ():
        if audited.scoring and "scoring" not in damaged:
            merged = merge(study.scoring.model_dump(mode="json"), audited.scoring)
            wrong += _validate(type(study.scoring), merged, ("audit", "criteria", name, "scoring"))[1]
    return wrong


def _overlap(one: Loc, other: Loc) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


# ------------------------------------------------------------------------------------------------------------ saying it


def _line(problem: Problem, config: dict[str, Any], documents: dict[Path, dict[str, Any]]) -> str:
    given = problem.given
    if isinstance(given, _UnknownKey):
        got = "got an unknown key; allowed:"
    elif given is None and _depth(config, problem.loc) < len(problem.loc):
        got = "got nothing;"
    else:
        got = f"got {_short(given)}; allowed:"
    near = get_close_matches(given, problem.choices, n=1) if isinstance(given, str) else []
    hint = f"; did you mean '{near[0]}'?" if near else ""
    place = ".".join(map(str, problem.loc))
    return f"{_file_of(problem.loc, documents)}{place}: {got} {problem.allowed}{hint}"


def _file_of(loc: Loc, documents: dict[Path, dict[str, Any]]) -> str:
    """The last of the files that go furthest along the key path; for a whole missing section, the first."""
    depths = {file: _depth(document, loc) for file, document in documents.items()}
    deepest = max(depths.values(), default=0)
    files = [file for file, depth in depths.items() if depth == deepest]
    return f"{files[-1 if deepest else 0]}: " if files else ""


def _depth(values: Any, loc: Loc) -> int:
    """How many keys of the path are there; a list counts as one value, as overlays replace it whole."""
    for depth, key in enumerate(loc):
        if isinstance(values, list) and isinstance(key, int):
            return len(loc)
        if not isinstance(values, dict) or key not in values:
            return depth
        values = values[key]
    return len(loc)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(node: Any) -> Any:
    """A schema node without default and discriminator, and without keys that match no pattern."""
    if isinstance(node, list):
        return [_plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items() if key not in ("default", "discriminator", "title")}
    if "default" in node and not isinstance(node["default"], dict):
        default = f"Default: {json.dumps(node['default'])}."
        plain["description"] = f"{node['description']} {default}" if "description" in node else default
    if "patternProperties" in node:
        plain["additionalProperties"] = False
    return plain
