"""``entpruner``: ``score``, ``prune``, ``sample`` and ``export`` for a model of your own; one sub-command per rule of
the workflow, known by its ``--settings``; ``params`` and ``plan`` to look at a study beforehand; and ``verify``,
``trace`` and ``expect`` to look at its tables afterwards."""

import argparse
import inspect
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

from entpruner import own_model_cli
from entpruner.errors import Stopped, UserError
from entpruner.system import launch, warm

COMMANDS = {
    "download": "download a file",
    "data": "prepare a data set",
    "autoencoder": "copy and check the autoencoder of the latents",
    "latents_shard": "encode a share of a data set",
    "latents": "gather a data set's latents",
    "classifier": "train a data set's own classifier",
    "pretrain": "train a backbone from nothing",
    "import_checkpoint": "take a backbone's weights from an official file",
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
    "audit_regime": "choose the audit's regime by random masks",
    "audit_masks": "measure sub-networks that no criterion chose",
    "audit_scores": "score every block by every audited criterion",
    "audit_choices": "measure the sets that the criteria choose",
    "audit_proxies": "NTK and ZiCo of the measured sub-networks",
    "audit_schedules": "compare schedules, and weights of the vote",
    "audit_stability": "rank the blocks by CED again and again",
    "audit_report": "write what the audit found",
    "track": "bring MLflow's view up to date",
}
TWOFOLD = {"score", "prune", "sample"}  # without --settings they are for a model of one's own
HOW = "ENTPRUNER_COMPUTE"  # JSON: the keys of compute that change results by rounding alone
ALONE = {"data", "track"}  # once a study; their libraries are large, start threads and have work to do when they exit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command; a UserError is one line on stderr and exit code 1, work to go on with another time 75."""
    arguments = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if is_rule(arguments):
            code = None if arguments[0] in ALONE else warm.run(arguments)
            if code is not None:
                return code
            run_rule(arguments[0], arguments[1:])
        else:
            return other_command(arguments)
    except UserError as error:
        launch.report(error)
        return 1
    except Stopped as stopped:
        launch.report(stopped)
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        if is_rule(arguments):
            raise  # Snakemake and the warm process go by the signal
        print("entpruner: interrupted; what is finished stays, so a pruning goes on when asked again", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        print(f"entpruner: {error}; check the path, its rights and the disk", file=sys.stderr)
        return 1
    return 0


def module_of(command: str) -> str:
    return f"entpruner.{'audit.commands' if command.startswith('audit_') else 'commands'}.{command}"


def is_rule(arguments: Sequence[str]) -> bool:
    given = {argument.partition("=")[0] for argument in arguments}
    return bool(arguments) and arguments[0] in COMMANDS and (arguments[0] not in TWOFOLD or "--settings" in given)


def run_rule(command: str, arguments: Sequence[str]) -> None:
    """Settings as JSON, and an option for each path, and number of threads, that the command's ``run`` takes."""
    from pydantic import ValidationError  # not needed by a command that the warm process runs

    module = import_module(module_of(command))  # only this one: torch alone takes seconds
    parser = argparse.ArgumentParser(prog=f"entpruner {command}", description=module.__doc__)
    parser.add_argument("--settings", required=True, help="JSON, as the workflow's rule gives it")
    hints = get_type_hints(module.run)
    for name in inspect.signature(module.run).parameters:
        if name == "threads":
            parser.add_argument("--threads", type=int, default=1)
        elif name != "settings":
            several = hints[name] == Sequence[Path]
            optional = hints[name] == Path | None
            parser.add_argument(f"--{name}", type=Path, required=not optional, nargs="+" if several else None)
    given = vars(parser.parse_args(arguments))
    try:
        settings = module.Settings.model_validate_json(with_compute(command, given.pop("settings")))
    except ValidationError as error:
        problems = [".".join(("--settings", *map(str, e["loc"]))) + f": {e['msg']}" for e in error.errors()]
        raise UserError(f"{command} {'; '.join(problems)}") from None
    if command in launch.SHARED:
        launch.together(partial(module.run, settings, **given), [command, *arguments], settings.compute)
    else:
        module.run(settings, **given)


def with_compute(command: str, settings: str) -> str:
    """The settings with what the environment says of how they are computed, which is no part of what is computed.

    So a study may be finished on other GPUs than it was begun on, and nothing is made again. Of several processes only
    commands that can share the work are told.
    """
    if HOW not in os.environ:
        return settings
    how, content = json.loads(os.environ[HOW]), json.loads(settings)
    apart = () if command in launch.SHARED else ("gpus", "nodes")
    if "compute" in content:
        content["compute"] |= {key: how[key] for key in how if key not in apart}
    return json.dumps(content)


def other_command(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="entpruner", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    own_model_cli.add_commands(commands)
    for name, summary in COMMANDS.items():
        if name not in TWOFOLD:
            commands.add_parser(name, help=summary)
    params = commands.add_parser("params", help="look at a params file").add_subparsers(required=True, metavar="ACTION")
    summaries = {check: "say all that is wrong, or nothing", show: "print the study with every default filled in"}
    for action, summary in summaries.items():
        on_files = params.add_parser(action.__name__, help=summary)
        on_files.add_argument("files", type=Path, nargs="+", metavar="FILE", help="later files lie over earlier")
        on_files.set_defaults(action=action)
    params.add_parser("schema", help="print the JSON schema").set_defaults(action=schema)
    plan_command(commands)
    tables_commands(commands)
    ahead = commands.add_parser("warm", help="run a program, its entpruner commands in a process that is warm already")
    ahead.add_argument("program", nargs="+", help="after --, with its arguments: -- snakemake --cores all")
    ahead.set_defaults(action=warm_up)
    given = parser.parse_args(arguments)
    return given.action(given) or 0


def plan_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ahead = commands.add_parser("plan", help="what a study will cost, before anything runs")
    ahead.add_argument("files", type=Path, nargs="+", metavar="FILE", help="later files lie over earlier")
    where = ahead.add_mutually_exclusive_group()
    where.add_argument("--gpu", default="H100 SXM", metavar="NAME", help="default: H100 SXM")
    where.add_argument("--here", action="store_true", help="on this machine instead, whose speed is tried for a while")
    ahead.add_argument(
        "--mfu", type=float, default=0.4, metavar="SHARE", help="of the GPU's peaks that is reached; default: 0.4"
    )
    ahead.add_argument("--json", action="store_true", help="FLOPs, seconds and bytes, as JSON")
    ahead.set_defaults(action=plan)


def tables_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    codes = (
        "Exit code: 0 all reproduced; 1 something not reproduced; 2 none of that, but something not run or undecided."
    )
    on_study = commands.add_parser("verify", help="compare every cell with what is expected of it", epilog=codes)
    depths = "build the tables from shipped metrics, from trained networks, or from scratch (default: 1)"
    on_study.add_argument("--depth", type=int, choices=(1, 2, 3), default=1, help=depths)
    on_study.add_argument("--tables", type=Path, metavar="FOLDER", help="compare finished tables, and build none")
    on_study.add_argument("--expected", type=Path, metavar="FILE", help="default: params/expected/<study>.yaml")
    on_study.set_defaults(action=verify)
    on_cell = commands.add_parser("trace", help="where a cell of a table comes from")
    on_cell.add_argument("table", metavar="TABLE", help="table1, ...")
    on_cell.add_argument("row", type=int, metavar="ROW", help="number of the row, from 1")
    on_cell.add_argument("column", metavar="COLUMN", help="its name or heading, or a beginning of one")
    on_cell.set_defaults(action=trace)
    for parser in (on_study, on_cell):
        parser.add_argument("--study", default="digits", help="default: digits")
    on_tables = commands.add_parser("expect", help="write what is expected of a published study's tables")
    on_tables.add_argument("folder", type=Path, metavar="FOLDER", help="results/published/<study>")
    on_tables.add_argument("--out", type=Path, required=True, metavar="FILE", help="params/expected/<study>.yaml")
    on_tables.set_defaults(action=expect)


def check(given: argparse.Namespace) -> None:
    from entpruner.params.files import read_study

    read_study(given.files)


def show(given: argparse.Namespace) -> None:
    from entpruner.params.files import read_study, show

    print(show(read_study(given.files)), end="")


def schema(_: argparse.Namespace) -> None:
    from entpruner.params.files import schema

    print(json.dumps(schema(), indent=2, ensure_ascii=False))


def plan(given: argparse.Namespace) -> None:
    from entpruner.params.files import read_study
    from entpruner.planning.gpus import gpu_named
    from entpruner.planning.report import as_json, as_text, plan
    from entpruner.planning.speed import on_gpu, on_this_machine

    if not 0 < given.mfu <= 1:
        raise UserError(f"--mfu: got {given.mfu:g}; allowed: above 0, at most 1: a share of the GPU's peak")
    gpu = gpu_named(given.gpu)
    found = plan(read_study(given.files), on_this_machine if given.here else lambda _: on_gpu(gpu, given.mfu))
    print(json.dumps(as_json(found), indent=1) if given.json else as_text(found))


def verify(given: argparse.Namespace) -> int:
    from entpruner.reporting.verify import verify

    return verify(given.study, given.depth, expected=given.expected, tables=given.tables)


def trace(given: argparse.Namespace) -> None:
    from entpruner.reporting.trace import trace

    print(trace(given.study, given.table, given.row, given.column))


def expect(given: argparse.Namespace) -> None:
    from entpruner.reporting.expected import expect
    from entpruner.system.files import whole_file

    text = expect(given.folder)
    with whole_file(given.out) as file:
        file.write_text(text)


def warm_up(given: argparse.Namespace) -> None:
    commands = [module_of(command) for command in COMMANDS if command not in ALONE]
    warm.become(given.program, [*commands, "torch_fidelity"])
    warm.leave(main())  # a child of the server, with a command of its own


if __name__ == "__main__":
    sys.exit(main())
