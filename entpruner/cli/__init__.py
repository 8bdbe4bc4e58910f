"""``entpruner``: commands for a model of your own, for a study, and for its tables.

``entpruner rule`` is not for people: the workflow's rules call it.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from entpruner.errors import Stopped, UserError
from entpruner.system import launch, warm

RULE = "rule"
INTERRUPTED = "entpruner: interrupted; what is finished stays, so a pruning goes on when asked again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a UserError is one line on stderr and exit code 1, work to go on with another time 75."""
    arguments = sys.argv[1:] if arguments is None else arguments
    is_rule = list(arguments[:1]) == [RULE]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return run_rule(arguments[1:]) if is_rule else run_command(arguments)
    except UserError as error:
        launch.report(error)
        return 1
    except Stopped as stopped:
        launch.report(stopped)
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        if is_rule:
            raise  # Snakemake and the warm process go by the signal
        print(INTERRUPTED, file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        print(f"entpruner: {error}; check the path, its rights and the disk", file=sys.stderr)
        return 1


def run_rule(arguments: Sequence[str]) -> int:
    """Run the command of a rule, in a child of the warm process where there is one that has it loaded."""
    code = warm.run([RULE, *arguments])
    if code is None:
        from entpruner.cli.rule import run  # seconds of imports, which a command in the warm process does without

        run(arguments)
        code = 0
    return code


def run_command(arguments: Sequence[str]) -> int:
    given = command_line().parse_args(arguments)
    return given.action(given) or 0


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands for people."""
    from entpruner.cli import own_model, study, tables

    groups = {"your model": own_model.COMMANDS, "a study": study.COMMANDS, "its tables": tables.COMMANDS}
    parser = argparse.ArgumentParser(
        prog="entpruner",
        usage="entpruner COMMAND ...",
        description="Entropy-guided pruning of diffusion and flow transformers.\n\n" + listing(groups),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="entpruner COMMAND --help says more.",
    )
    parser.add_argument("--version", action="version", version=f"entpruner {version('entpruner')}")
    commands = parser.add_subparsers(prog="entpruner", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    for group in groups.values():
        for add, summary in group.items():
            name = add.__name__
            add(commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."))
    return parser


Commands = Mapping[Any, str]
"""What a command does in a line, by the function of the command's name that adds its options and sets ``action``."""


def listing(groups: Mapping[str, Commands]) -> str:
    """The commands in their groups, as the first screen shows them."""
    sections = []
    for title, group in groups.items():
        sections.append("\n".join([f"{title}:", *(f"  {add.__name__:<9}{does}" for add, does in group.items())]))
    return "\n".join(sections)
