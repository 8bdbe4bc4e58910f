"""``entpruner``: commands for a model of your own, for a study, and for its tables.

``entpruner rule`` is not for people: the workflow's rules call it.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from entpruner.cli.parser import Parser
from entpruner.errors import Stopped, UserError
from entpruner.system import launch, warm
from entpruner.system.stopping import end_with_parent, take_hangup_as_interrupt

log = logging.getLogger(__name__)

RULE = "rule"
INTERRUPTED = "entpruner: interrupted; what is finished stays, so a pruning goes on when asked again"
COMMANDS = {
    "your model": {
        "score": "score every block of a model, on images of yours",
        "prune": "prune a model while it is trained on images of yours",
        "sample": "sample images from a model",
        "export": "write a model for the official DiT or SiT code, or for diffusers",
    },
    "a study": {
        "params": "check params files, or show what they mean",
        "plan": "what a study will cost, before anything runs",
        "doctor": "say what is wrong with a folder of results, and mend it",
        "warm": "run Snakemake with its commands in a process that is warm already",
    },
    "its tables": {
        "verify": "compare every cell with what is expected of it",
        "trace": "where a cell of a table comes from",
        "expect": "write what is expected of a published study's tables",
    },
}
"""What a command does in a line, by its name, in groups. A module of ``MODULES`` has a function of the same name."""
MODULES = {"your model": "own_model", "a study": "study", "its tables": "tables"}
"""The modules in which the groups of commands add their options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a UserError is one line on stderr and exit code 1, work to go on with another time 75."""
    arguments = sys.argv[1:] if arguments is None else arguments
    is_rule = list(arguments[:1]) == [RULE]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    take_hangup_as_interrupt()
    try:
        return run_rule(arguments[1:]) if is_rule else run_command(arguments)
    except UserError as error:
        log.debug("where it arose", exc_info=True)
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
    except BrokenPipeError:  # the reader of a pipe has seen enough, as with `entpruner verify | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to be written has no reader
        return 128 + signal.SIGPIPE
    except ModuleNotFoundError as error:
        if (error.name or "entpruner").partition(".")[0] == "entpruner":
            raise
        print(f"entpruner: {error.name} is not installed; run: pip install 'entpruner[workflow]'", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"entpruner: {error}; check the path, its rights and the disk", file=sys.stderr)
        return 1


def run_rule(arguments: Sequence[str]) -> int:
    """Run the command of a rule, in a child of the warm process where there is one that has it loaded.

    It ends with Snakemake, so that another run meets no command of a run that was killed.
    """
    end_with_parent()
    code = warm.run([RULE, *arguments])
    if code is None:
        from entpruner.cli.rule import run  # seconds of imports, which a command in the warm process does without

        run(arguments)
        code = 0
    return code


def run_command(arguments: Sequence[str]) -> int:
    """Run a command for people, and write out all that it prints, so that a closed pipe shows here."""
    say_whose_code()
    parser = command_line(next((word for word in arguments if not word.startswith("-")), ""))
    given = parser.parse_args(arguments, argparse.Namespace(arguments=arguments))
    be_as_loud_as(given.level)
    code = given.action(given) or 0
    sys.stdout.flush()
    return code


def command_line(asked: str | None = None) -> Parser:
    """The parser of all commands for people; or one for the command that is ``asked`` for, which is there sooner.

    The latter knows the options of this command only, and its help leaves the commands to ``listing``.
    """
    parser = Parser(
        prog="entpruner",
        usage="entpruner COMMAND ... (entpruner COMMAND --help says more)",
        description="Entropy-guided pruning of diffusion and flow transformers.\n\n" + listing(),
    )
    parser.add_argument("--version", action=Version, help="show the version")
    completes = "print what bash or zsh completes with"
    parser.add_argument("--completion", metavar="SHELL", choices=("bash", "zsh"), action=Completion, help=completes)
    shown = None if asked is None else argparse.SUPPRESS
    commands = parser.add_subparsers(prog="entpruner", required=True, metavar="COMMAND", help=shown)
    for group, names in COMMANDS.items():
        for name, summary in names.items():
            command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
            if asked in (None, name):
                getattr(import_module(f"entpruner.cli.{MODULES[group]}"), name)(command)
            add_loudness(command)
    return parser


def listing() -> str:
    """The commands in their groups, as the first screen shows them."""
    sections = []
    for title, group in COMMANDS.items():
        sections.append("\n".join([f"{title}:", *(f"  {name:<9}{does}" for name, does in group.items())]))
    return "\n".join(sections)


def add_loudness(parser: argparse.ArgumentParser) -> None:
    loudness = parser.add_argument_group("how much is said").add_mutually_exclusive_group()
    for *names, level, says in (
        ("-v", "--verbose", logging.DEBUG, "with times, and where in the code a problem arose"),
        ("-q", "--quiet", logging.WARNING, "results and problems only"),
    ):
        loudness.add_argument(*names, dest="level", action="store_const", const=level, default=logging.INFO, help=says)


def be_as_loud_as(level: int) -> None:
    """From here on log what is at least this important. Only a command that tells everything has times in its lines."""
    logging.getLogger().setLevel(max(level, logging.INFO))
    logging.getLogger("entpruner").setLevel(level)
    if level == logging.DEBUG:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))


class Version(argparse.Action):
    """Print the version of the installed package, which takes a while to find."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"entpruner {version('entpruner')}")
        parser.exit()


class Completion(argparse.Action):
    """Print the script that makes a shell complete commands and options."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: object, *__: object) -> None:
        import shtab

        print(shtab.complete(command_line(), shell=str(shell)))
        parser.exit()


def say_whose_code() -> None:
    """Warn if this folder is a checkout of this package, but another one's code runs: two clones that share a .venv."""
    here, running = Path("entpruner").resolve(), Path(__file__).parents[1]
    if (here / "cli/__init__.py").exists() and here != running:
        print(f"entpruner: the code that runs is {running}, not this folder's; run: pip install -e .", file=sys.stderr)
