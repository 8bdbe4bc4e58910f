"""``make chaos``: do the trials that are not done yet, and show a table of all."""

import argparse
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

from chaos import commands, flips, trees
from chaos.study import SMOKE, Job, code, jobs, undisturbed

KINDS = ("bytes", "commands", "trees", "disk")
A_RUN = 7
"""How often one run of the study is killed."""
FEWER = 20
"""For so many kills, one trial of each other way."""
Outcome = tuple[str, str, str]
"""The kind of a try, what it was, and what is wrong."""
Attempt = Callable[[random.Random], Iterable[Outcome]]


class Try(NamedTuple):
    """What happened to one thing that was done to a study."""

    trial: str
    """The trial that it belongs to, by which it can be repeated."""
    kind: str
    what: str
    wrong: str
    """Nothing, if the study survived."""


class Chaos:
    """The trials of one seed, in a folder where their outcomes are kept."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder / code(), seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / f"seed-{seed}.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.tries = [Try(*json.loads(line)) for line in lines]
        self.counts: dict[str, int] = {}
        self.undisturbed = undisturbed(self.folder)
        self.expected: dict[str, str] = json.loads((self.folder / "bits.json").read_text())

    def do(self, trial: str, attempt: Attempt, again: bool) -> None:
        """Do a trial, unless its outcome is known and it is not to be done ``again``."""
        if any(known.trial == trial for known in self.tries) and not again:
            return
        found = [Try(trial, *outcome) for outcome in attempt(random.Random(f"{self.seed} {trial}"))]
        self.tries = [known for known in self.tries if known.trial != trial] + found
        self.file.write_text("".join(json.dumps(one) + "\n" for one in self.tries))
        for one in found:
            print(f"{trial}: {one.kind}, {one.what}: {one.wrong or 'survived'}", flush=True)

    def table(self) -> str:
        """The tries by kind, and what was lost."""
        kinds = sorted({one.kind for one in self.tries})
        rows = [("what", "tries", "survived", "lost")]
        for kind in kinds:
            tries = [one for one in self.tries if one.kind == kind]
            lost = [one for one in tries if one.wrong]
            rows.append((kind, str(len(tries)), str(len(tries) - len(lost)), str(len(lost))))
        width = max(len(row[0]) for row in rows)
        lines = [f"{name:<{width}}{tries:>8}{survived:>10}{lost:>6}" for name, tries, survived, lost in rows]
        for one in self.tries:
            if one.wrong:
                lines.append(f"lost: {one.kind}, {one.what}: {one.wrong} (--seed {self.seed} --repeat {one.trial})")
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------------------- trials

    @cached_property
    def place(self) -> commands.Place:
        return commands.Place(self.undisturbed, SMOKE.results, self.folder / "commands")

    @cached_property
    def jobs(self) -> list[Job]:
        return jobs(self.undisturbed)

    def trials(self, asked: argparse.Namespace) -> Iterator[tuple[str, Attempt]]:
        """All trials that are asked for, by name."""
        if "bytes" in asked.only:
            for number in range(asked.bytes):
                yield f"byte-{number}", lambda random_: [flips.flip_somewhere(self.place, self.jobs, random_)]
        if "commands" in asked.only:
            for way in commands.WAYS:
                for number in range(asked.commands if way == "kill" else math.ceil(asked.commands / FEWER)):
                    yield f"command-{way}-{number}", partial(self.command, way)
        if "trees" in asked.only:
            others = [way for way in trees.WAYS if way != "kill"]
            for number in range(math.ceil(asked.kills / A_RUN)):
                yield f"kills-{number}", partial(self.tree, ["kill"] * A_RUN)
            for number in range(math.ceil(asked.kills / FEWER)):
                yield f"stops-{number}", partial(self.tree, others)
        if "disk" in asked.only:
            for number in range(math.ceil(asked.kills / FEWER)):
                yield f"disk-{number}", self.disk

    def command(self, way: str, random_: random.Random) -> list[Outcome]:
        return [commands.end_early(self.place, self.jobs, self.counts, random_, way)]

    def disk(self, random_: random.Random) -> list[Outcome]:
        try:
            return [trees.fill_disk(self.folder / "disk", self.expected, random_)]
        except subprocess.CalledProcessError as error:
            print(f"no disk could be made small, which needs root: {error}", flush=True)
            return []

    def tree(self, ways: Sequence[str], random_: random.Random) -> list[Outcome]:
        return [*trees.break_off(self.folder / "tree", self.expected, random_, random_.sample(ways, len(ways)))]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="default: all")
    parser.add_argument("--kills", type=int, default=42, help="of whole runs; some more are disturbed otherwise")
    parser.add_argument("--commands", type=int, default=200, help="kills of single commands; a fifth more, otherwise")
    parser.add_argument("--bytes", type=int, default=100, help="flipped bytes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(".chaos"), help="where it goes on from; default: .chaos")
    parser.add_argument("--repeat", metavar="TRIAL", help="do one trial again, as command-kill-17")
    asked = parser.parse_args()
    chaos = Chaos(asked.folder.resolve(), asked.seed)
    for trial, attempt in chaos.trials(asked):
        if asked.repeat in (None, trial):
            chaos.do(trial, attempt, again=trial == asked.repeat)
    print(chaos.table())
    return int(any(one.wrong for one in chaos.tries))


if __name__ == "__main__":
    sys.exit(main())
