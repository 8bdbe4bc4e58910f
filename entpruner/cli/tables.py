"""Commands that look at the tables of a study afterwards."""

import argparse
from pathlib import Path


def verify(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "example:\n  entpruner verify --study digits\n\n"
        "Exit code: 0 all reproduced; 1 something not reproduced;\n2 none of that, but something not run or undecided."
    )
    add_study(parser)
    depths = "build the tables from shipped records, from trained networks, or from scratch (default: 1)"
    parser.add_argument("--depth", type=int, choices=(1, 2, 3), default=1, help=depths)
    parser.add_argument("--tables", type=Path, metavar="FOLDER", help="compare finished tables, and build none")
    parser.add_argument("--expected", type=Path, metavar="FILE", help="default: params/expected/<study>.yaml")
    parser.set_defaults(action=verified)


def trace(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner trace table1 3 fd"
    add_study(parser)
    parser.add_argument("table", metavar="TABLE", help="table1, ...")
    parser.add_argument("row", type=int, metavar="ROW", help="number of the row, from 1")
    parser.add_argument("column", metavar="COLUMN", help="its name or heading, or a beginning of one")
    parser.set_defaults(action=traced)


def expect(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  entpruner expect results/published/digits --out params/expected/digits.yaml"
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="results/published/<study>")
    out = "params/expected/<study>.yaml; <study>.processors.json beside it says how far processors differ"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help=out)
    parser.set_defaults(action=expected)


def add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", default="digits", help="default: digits")


def verified(given: argparse.Namespace) -> int:
    from entpruner.reporting.verify import verify

    return verify(given.study, given.depth, expected=given.expected, tables=given.tables)


def traced(given: argparse.Namespace) -> None:
    from entpruner.reporting.trace import trace

    print(trace(given.study, given.table, given.row, given.column))


def expected(given: argparse.Namespace) -> None:
    from entpruner.reporting.expected import expect
    from entpruner.reporting.processors import Processors
    from entpruner.system.files import whole_file

    text = expect(given.folder, Processors.read(given.out.with_suffix(".processors.json")))
    with whole_file(given.out) as file:
        file.write_text(text)
