"""Params files and overlays: read, merge, check, show. What is wrong is said at once, by file and key path."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from entpruner.errors import UserError
from entpruner.params.base import Frozen, merge
from entpruner.params.documents import BeyondLimit, read_yaml
from entpruner.params.messages import Loc, Problem, dotted, short, validated
from entpruner.params.problems import contradictions, overrides, unfit_own_trainings
from entpruner.params.study import OwnModel, Study

Settings = TypeVar("Settings", bound=Frozen)

PARAMS = Path(__file__).parents[2] / "params"
DEFAULT_STUDY, REFERENCE = PARAMS / "digits.yaml", PARAMS / "reference.yaml"
STORY_TEMPLATE = PARAMS.parent / "workflow/report/story.html.j2"


STAND_IN: dict[str, Any] = {"study": "x", "datasets": {}, "backbones": {}, "arms": {}}
STAND_IN |= {training: {"steps": 1} for training in ("pretrain", "adapt", "finetune")}
"""For required sections that are wrong, while the others are checked."""

SHOWN = 20  # problems that are told at once


def read_study(files: Sequence[Path]) -> Study:
    """The study that params files describe, each laid over those before it.

    Raises UserError, one line a problem: file, key path, what was given, what is allowed, the nearest known name.
    """
    return read_config({}, files)


def read_config(overlay: dict[str, Any], files: Sequence[Path]) -> Study:
    """The study of params files with an overlay that is in no file; raises UserError as ``read_study`` does."""
    config: dict[str, Any] = {}
    for document in (*_load_all(files).values(), overlay):
        config = merge(config, document)
    return check(*over_default(config, files))


def read_own_model(files: Sequence[Path], options: dict[str, Any] | None = None) -> OwnModel:
    """Settings for a model of one's own: the defaults, params files of such sections over them, then single options.

    Raises UserError as ``read_study`` does.
    """
    own = read_settings(OwnModel, files, options)
    if found := [*unfit_own_trainings(own)]:
        raise _error(found, _load_all(files))
    return own


def read_settings(kind: type[Settings], files: Sequence[Path], options: dict[str, Any] | None = None) -> Settings:
    """Settings of a kind, in the same way."""
    documents = _load_all(files)
    config = kind().model_dump(mode="json")
    for document in (*documents.values(), options or {}):
        config = merge(config, document)
    settings, found = validated(kind, _plain(config))
    if settings is None:
        raise _error(found, documents)
    return settings


def over_default(config: dict[str, Any], files: Sequence[Path]) -> tuple[dict[str, Any], Sequence[Path]]:
    """A config without ``study`` (an overlay, or nothing) is laid over the default study, whose file goes first."""
    if "study" in config:
        return config, files
    [default] = _load_all([DEFAULT_STUDY]).values()
    return merge(default, config), [DEFAULT_STUDY, *files]


def check(config: dict[str, Any], files: Sequence[Path] = ()) -> Study:
    """The study of a config that Snakemake has merged from ``files``; raises UserError as ``read_study`` does."""
    documents, config = _load_all(files), _plain(config)
    study, found = validated(Study, config)
    doubted: list[Problem] = []  # they are not told, but what they are about is left out of what is checked next
    for more, rest in ((overrides, _rest), (contradictions, _fitting)) if len(found) < SHOWN else ():
        problems = [*more(rest(config, [*found, *doubted]))]
        doubted += [problem for problem in problems if problem.doubtful(found)]
        found += [problem for problem in problems if not problem.doubtful(found)]
    if study is None or found:
        raise _error(found, documents)
    return study


def show(study: Study) -> str:
    """The study as YAML with every default filled in; reading it gives the same study."""
    return yaml.dump(study.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def schema() -> dict[str, Any]:
    """JSON schema of a params file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}


# ------------------------------------------------------------------------------------------------------ YAML in and out


class _Dumper(yaml.SafeDumper):
    """Lists on one line; Unicode's own line breaks escaped, which would be read back as newlines."""


def _list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if set(text) & set("\x85\u2028\u2029") else None)


_Dumper.add_representer(list, _list)
_Dumper.add_representer(str, _text)


def _plain(config: dict[str, Any]) -> Any:
    """A config as JSON has it: keys are text, and dates too."""

    def named(value: Any) -> Any:
        if isinstance(value, dict):
            known = str | int | float | None  # json makes text of these, in its own way
            return {key if isinstance(key, known) else str(key): named(inner) for key, inner in value.items()}
        return [*map(named, value)] if isinstance(value, list | set) else value

    return json.loads(json.dumps(named(config), default=str))


def _load_all(files: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    documents, wrong = {}, []
    for file in map(Path, files):
        try:
            document = read_yaml(file)
        except OSError as error:
            wrong.append(f"{file}: cannot be read ({error.strerror}); give the path of a params file")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            what = getattr(error, "problem", None) or str(error).splitlines()[0]
            wrong.append(f"{file}{line}: {'' if isinstance(error, BeyondLimit) else 'not valid YAML: '}{what}")
        else:
            if isinstance(document, dict) or document is None:
                documents[file] = _plain(document or {})
            else:
                wrong.append(f"{file}: got {short(document)}; allowed: a mapping of keys to values")
    if wrong:
        raise UserError("\n".join(wrong))
    return documents


def _error(found: Sequence[Problem], documents: Mapping[Path, dict[str, Any]]) -> UserError:
    """One line a problem, with the file that said it."""
    lines = (f"{_file_of(loc, documents)}{dotted(loc)}: {says}" for loc, says, _ in found)
    said = [*dict.fromkeys(lines)]
    if len(said) > SHOWN:
        said[SHOWN:] = [f"and {len(said) - SHOWN} or more problems besides; correct these first"]
    return UserError("\n".join(said))


def _file_of(loc: Loc, documents: Mapping[Path, dict[str, Any]]) -> str:
    """The last of the files that go furthest along the key path; for a whole missing section, the first."""
    depths = {file: _depth(document, loc) for file, document in documents.items()}
    deepest = max(depths.values(), default=0)
    files = [file for file, depth in depths.items() if depth == deepest]
    return f"{files[-1 if deepest else 0]}: " if files else ""


def _depth(values: Any, loc: Loc) -> int:
    """How many keys of the path are there; a list counts as one value, as overlays replace it whole."""
    if not loc or isinstance(values, list):
        return len(loc)
    return 1 + _depth(values[loc[0]], loc[1:]) if isinstance(values, dict) and loc[0] in values else 0


def _rest(config: dict[str, Any], found: Sequence[Problem]) -> Study:
    """The study without what is wrong, so that the rest can be checked too. No more is left out than must be."""
    for problem in found:
        config = _without(config, problem.loc)
    study, found = validated(Study, merge(STAND_IN, config))
    return study or _rest(config, found)


def _fitting(config: dict[str, Any], found: Sequence[Problem]) -> Study:
    """The same, with overrides that are valid in themselves: one may need the key that is left out of it."""
    rest = _rest(config, found)
    misfits = [*overrides(rest)] if found else []
    return _fitting(config, [*found, *misfits]) if misfits else rest


def _without(values: dict[str, Any], loc: Loc) -> dict[str, Any]:
    """The values without what is at a key path, or without the mapping in which that key is missing."""
    key, rest = str(loc[0]), loc[1:]
    inner = values.get(key)
    if isinstance(inner, dict) and rest and (len(rest) > 1 or rest[0] in inner):
        return {**values, key: _without(inner, rest)}
    return {other: value for other, value in values.items() if other != key}
