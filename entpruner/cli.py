"""``entpruner``: one sub-command per rule of the workflow, and ``params`` to look at a study before running it."""

import argparse
import inspect
import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

from pydantic import ValidationError

from entpruner.errors import UserError

COMMANDS = {
    "data": "prepare a data set",
    "classifier": "train a data set's own classifier",
    "pretrain": "train a backbone from nothing",
    "adapt": "move a backbone to other data",
    "score": "score every block",
    "prune": "one pruning stage: decide, drop, train",
    "recover": "train on after the last pruning",
    "cut": "the network right after its last cut",
    "sample": "sample images",
    "evaluate": "measure sampled images",
    "cost": "parameters, MACs and latency",
    "table": "build a table",
    "figure": "draw a figure",
    "track": "bring MLflow's view up to date",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; a UserError is one line on stderr and exit code 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if arguments and arguments[0] in COMMANDS:
            run_rule(arguments[0], arguments[1:])
        else:
            other_command(arguments)
    except UserError as error:
        print(f"entpruner: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"entpruner: {error}; check the path, its rights and the disk", file=sys.stderr)
        return 1
    return 0


def run_rule(command: str, arguments: Sequence[str]) -> None:
    """Settings as JSON, and an option for each path that the command's ``run`` takes."""
    module = import_module(f"entpruner.commands.{command}")  # only this one: torch alone takes seconds
    parser = argparse.ArgumentParser(prog=f"entpruner {command}", description=module.__doc__)
    parser.add_argument("--settings", required=True, help="JSON, as the workflow's rule gives it")
    hints = get_type_hints(module.run)
    paths = [name for name in inspect.signature(module.run).parameters if name != "settings"]
    for name in paths:
        several = hints[name] == Sequence[Path]
        optional = hints[name] == Path | None
        parser.add_argument(f"--{name}", type=Path, required=not optional, nargs="+" if several else None)
    given = vars(parser.parse_args(arguments))
    try:
        settings = module.Settings.model_validate_json(given.pop("settings"))
    except ValidationError as error:
        problems = [".".join(("--settings", *map(str, e["loc"]))) + f": {e['msg']}" for e in error.errors()]
        raise UserError(f"{command} {'; '.join(problems)}") from None
    module.run(settings, **given)


def other_command(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="entpruner", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    params = commands.add_parser("params", help="look at a params file").add_subparsers(required=True, metavar="ACTION")
    summaries = {check: "say all that is wrong, or nothing", show: "print the study with every default filled in"}
    for action, summary in summaries.items():
        on_files = params.add_parser(action.__name__, help=summary)
        on_files.add_argument("files", type=Path, nargs="+", metavar="FILE", help="later files lie over earlier")
        on_files.set_defaults(action=action)
    params.add_parser("schema", help="print the JSON schema").set_defaults(action=schema)
    given = parser.parse_args(arguments)
    given.action(given)


def check(given: argparse.Namespace) -> None:
    from entpruner.paramfiles import read_study

    read_study(given.files)


def show(given: argparse.Namespace) -> None:
    from entpruner.paramfiles import read_study, show

    print(show(read_study(given.files)), end="")


def schema(_: argparse.Namespace) -> None:
    import json

    from entpruner.paramfiles import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
