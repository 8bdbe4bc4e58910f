"""The plan of a finished run against the seconds that its commands recorded. Bar: all within a factor of 2.

    python benchmarks/plan.py PARAMS RESULTS [--out FILE]      params/smoke.yaml results/smoke

Run it on the machine that the run was on. The plan's speed is tried here and now, as ``entpruner plan --here`` does.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

from entpruner.artefacts import read_json, write_json
from entpruner.params.files import read_study
from entpruner.planning.report import plan
from entpruner.planning.speed import on_this_machine
from entpruner.reporting.machine import RECORDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("params", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = plan(read_study([options.params]), on_this_machine)
    rules, machine = {}, {}
    for row in found.rules:
        if row.rule in RECORDS:
            timings = [read_json(file) for file in sorted(options.results.glob(RECORDS[row.rule]))]
            measured = row.jobs * mean(timing["seconds"] for timing in timings)  # an audit may have made more of them
            rules[row.rule] = {"jobs": row.jobs, "planned_seconds": row.seconds, "measured_seconds": measured}
            machine = {key: timings[0][key] for key in ("device", "threads", "python", "torch")}
    total = {key: sum(rule[key] for rule in rules.values()) for key in ("planned_seconds", "measured_seconds")}
    ratio = total["planned_seconds"] / total["measured_seconds"]
    content = {"study": found.study, "speed": found.speed.machine, "machine": machine, "rules": rules, "total": total}
    if options.out:
        write_json(options.out, content | {"ratio": ratio})
    print(json.dumps(content | {"ratio": ratio}, indent=1))


if __name__ == "__main__":
    main()
