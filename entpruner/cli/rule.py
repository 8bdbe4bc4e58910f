"""``entpruner rule NAME --settings JSON --store FOLDER ...``: the command of one rule, as the workflow calls it."""

import argparse
import inspect
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import ValidationError

from entpruner.errors import UserError
from entpruner.layout import WILDCARD, Layout
from entpruner.rules import RULES
from entpruner.rules.rule import Rule
from entpruner.system import launch
from entpruner.system.noting import Written, noted

HOW = "ENTPRUNER_COMPUTE"
"""An environment variable of JSON: the keys of ``compute`` that change results by rounding alone."""


def run(arguments: Sequence[str]) -> None:
    """Run the command of a rule with its settings as JSON, and an option for each path that the command takes."""
    parser = argparse.ArgumentParser(prog="entpruner rule", description=__doc__)
    parser.add_argument("rule", choices=RULES, metavar="NAME", help=", ".join(RULES))
    parser.add_argument("options", nargs=argparse.REMAINDER)
    named = parser.parse_args(arguments)
    rule = RULES[named.rule]
    module = import_module(rule.module)  # only this one: torch alone takes seconds
    parser = argparse.ArgumentParser(prog=f"entpruner rule {rule.name}", description=type(rule).__doc__)
    parser.add_argument("--settings", required=True, help="JSON, as the workflow's rule gives it")
    for name, kind in options_of(module.run).items():
        if name == "threads":
            parser.add_argument("--threads", type=int, default=1)
        else:
            several, optional = kind == Sequence[Path], kind == Path | None
            parser.add_argument(f"--{name}", type=Path, required=not optional, nargs="+" if several else None)
    given = vars(parser.parse_args(named.options))
    try:
        kind = get_type_hints(module.run)["settings"]
        settings = kind.model_validate_json(with_compute(rule, given.pop("settings")))
    except ValidationError as error:
        problems = [".".join(("--settings", *map(str, e["loc"]))) + f": {e['msg']}" for e in error.errors()]
        raise UserError(f"{rule.name} {'; '.join(problems)}") from None

    def work() -> None:
        with out_of_memory_explained(rule):
            module.run(settings, **given)

    with noted(written(rule, given) if rule.lasting else ()):
        if rule.shared:
            launch.together(work, ["rule", *arguments], settings.compute)
        else:
            work()


def written(rule: Rule, given: Mapping[str, Path]) -> Iterator[Written]:
    """Where a rule's command writes its files, by the paths that it is given for what it makes."""
    for option, artefact in rule.outputs(Layout("study")).items():
        made = given[option]
        for file in artefact.files.values():
            yield Written(made if file.parent == artefact.path else made.parent, WILDCARD.sub("*", file.name))
        yield from (Written(made.parent, names) for names in rule.beside)


def options_of(command: Any) -> dict[str, Any]:
    """The types of a command's options by name: its keyword arguments, and those of the TypedDict that it unpacks."""
    hints = get_type_hints(command)
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= get_type_hints(get_args(hints[name])[0])
        elif name != "settings":
            found[name] = hints[name]
    return found


def with_compute(rule: Rule, settings: str) -> str:
    """The settings with what the environment says of how they are computed, which is no part of what is computed.

    So a study may be finished on other GPUs than it was begun on, and nothing is made again. Of several processes only
    rules are told that can share the work.
    """
    if HOW not in os.environ:
        return settings
    how, content = json.loads(os.environ[HOW]), json.loads(settings)
    apart = () if rule.shared else ("gpus", "nodes")
    if "compute" in content:
        content["compute"] |= {key: how[key] for key in how if key not in apart}
    return json.dumps(content)


@contextmanager
def out_of_memory_explained(rule: Rule) -> Iterator[None]:
    """Within the block, a GPU without enough memory is a UserError: what was asked, what to lower, what is kept."""
    try:
        yield
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.OutOfMemoryError):
            raise
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        what = f" ({asked[1]} more were asked for)" if asked else ""
        kept = "what was finished is kept, and the same command goes on" if rule.resumes else "nothing was written"
        raise UserError(
            f"{rule.name}: the GPU has too little memory{what}: lower {rule.lower}, or take a larger GPU; {kept}"
        ) from None
