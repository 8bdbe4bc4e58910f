"""The plan of a finished run against the time that its commands recorded. Bar: all within a factor of 2.

    python benchmarks/plan.py PARAMS RESULTS [--out FILE]      params/digits.yaml results/digits

Run it on the machine that the run was on. The plan's speed is tried here and now, as ``entpruner plan --here`` does.
On the CPU a command's time is what its threads worked, so that neither the run nor the trial minds what else the
machine does; on a GPU, or where a record does not have it, the clock's. The audit is compared where it was run.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from statistics import mean
from typing import Any

from entpruner.layout import Layout
from entpruner.planning.plan import Plan, plan
from entpruner.planning.speed import on_this_machine
from entpruner.reporting.records import Records
from entpruner.rules import RULES
from entpruner.system.files import write_json

WITHIN = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("params", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    records = recorded(Records(options.results))
    if not records:
        parser.error(f"{options.results} holds no records of time: give the folder of a finished study")
    found = plan([options.params], on_this_machine)
    content = compared(found, records)
    if options.out:
        write_json(options.out, content)
    print(as_text(content))


def recorded(records: Records) -> dict[str, list[Mapping[str, Any]]]:
    """The records of time that a finished study holds, by the rule whose command left each."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    paths = Layout("study")
    for name, rule in RULES.items():
        made = [
            path.relative_to(paths.root)
            for path in map(Path, rule.files_out(paths).values())
            if path.is_relative_to(paths.root)
        ]
        patterns = [re.sub(r"\{\w+\}", "*", str(path)) for path in made]
        timings = {path: time for path, time in records.timings().items() if any(fnmatch(path, p) for p in patterns)}
        if timings:
            found[name] = list(timings.values())
    return found


def compared(found: Plan, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Rule by rule: as many jobs as are planned, at the mean time of those that were recorded."""
    every = [record for some in records.values() for record in some]
    by_threads = all("cpu_seconds" in record and not record["peak_gpu_memory_mb"] for record in every)
    audited = any(rule.startswith("audit_") for rule in records)
    rules: dict[str, dict[str, float]] = {}
    for row in (*found.rules, *(found.audit if audited else ())):
        if row.rule in records:
            rule = rules.setdefault(row.rule, {"jobs": 0, "records": len(records[row.rule]), "planned_seconds": 0.0})
            rule["jobs"] += row.jobs
            rule["planned_seconds"] += row.seconds
    for name, rule in rules.items():
        seconds = [r["cpu_seconds"] / r["threads"] if by_threads else r["seconds"] for r in records[name]]
        rule["measured_seconds"] = rule["jobs"] * mean(seconds)
    total = {key: sum(rule[key] for rule in rules.values()) for key in next(iter(rules.values()))}
    for rule in (*rules.values(), total):
        rule["ratio"] = rule["planned_seconds"] / rule["measured_seconds"]
        rule["within"] = 1 / WITHIN <= rule["ratio"] <= WITHIN
    return {
        "study": found.study,
        "speed": found.speed._asdict(),
        "measured_by": "the commands' CPU seconds, a thread" if by_threads else "the clock, whatever else ran",
        "machine": {key: every[0][key] for key in ("device", "threads", "python", "torch")},
        "rules": rules,
        "total": total,
    }


def as_text(content: Mapping[str, Any]) -> str:
    lines = [("rule", "jobs", "records", "planned, s", "measured, s", "planned / measured", f"within {WITHIN}x")]
    for name, rule in {**content["rules"], "all": content["total"]}.items():
        seconds = f"{rule['planned_seconds']:.1f}", f"{rule['measured_seconds']:.1f}", f"{rule['ratio']:.2f}"
        lines.append((name, f"{rule['jobs']}", f"{rule['records']}", *seconds, "yes" if rule["within"] else "NO"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return "\n".join([f"{content['study']}, measured by {content['measured_by']}", "", *table])


if __name__ == "__main__":
    main()
