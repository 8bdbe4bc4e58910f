"""Commands by the warm process against fresh ones: one that is refused at once, and a short score. Same files.

    python benchmarks/warm.py [--repeats 5] [--out FILE]

The first warm command, which waits for the libraries, is timed alone. The score's own seconds, from when its libraries
are loaded, say whether a child works as fast as a new process.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interleaved import compare, parser, ratio, report

from entpruner.system.files import read_json
from entpruner.system.warm import ADDRESS

ENTPRUNER = [sys.executable, "-m", "entpruner.cli"]
FRESH = {name: value for name, value in os.environ.items() if name != ADDRESS}


def entpruner(command: str, settings: dict[str, Any], *, environment: dict[str, str], **paths: Path) -> int:
    options = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
    arguments = [*ENTPRUNER, "rule", command, "--settings", json.dumps(settings), *options]
    return subprocess.run(arguments, env=environment, stderr=subprocess.DEVNULL, check=False).returncode


def main() -> None:
    options = parser(__doc__).parse_args()
    if ADDRESS not in os.environ:
        os.execv(sys.executable, [*ENTPRUNER, "warm", "--", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


def measure(options: Any, folder: Path) -> None:
    common = {"seed": 0, "artefact": "benchmark", "compute": {"device": "cpu", "threads": options.threads}}
    shape = {"depth": options.depth, "hidden_size": options.hidden, "num_heads": options.heads, "patch_size": 2}
    training = {"steps": 1, "batch_size": 8, "learning_rate": 1e-3}
    backbone = {"backbone": {"process": {"kind": "flow"}, **shape}, "training": training}
    scoring = {"criterion": "ced", "scoring": {"draws": 128, "batch_size": 128}}
    paths = {"store": folder / "store", "init": folder / "model"}
    entpruner("data", {"dataset": {"source": "digits"}}, environment=FRESH, out=paths["store"])
    entpruner("pretrain", common | backbone, environment=FRESH, store=paths["store"], out=paths["init"])

    seconds: dict[str, list[float]] = {"fresh": [], "warm": []}

    def refused(environment: dict[str, str]) -> Callable[[], object]:
        return lambda: entpruner("score", {}, environment=environment, out=folder, **paths)

    def scored(way: str, environment: dict[str, str]) -> Callable[[], object]:
        def run() -> None:
            assert entpruner("score", common | scoring, environment=environment, out=folder / way, **paths) == 0
            seconds[way].append(read_json(folder / way / "timing.json")["seconds"])

        return run

    started = time.perf_counter()
    refused(dict(os.environ))()
    loading = time.perf_counter() - started
    ways = {
        "refused, fresh": refused(FRESH),
        "refused, warm": refused(dict(os.environ)),
        "score, fresh": scored("fresh", FRESH),
        "score, warm": scored("warm", dict(os.environ)),
    }
    times = compare(ways, options.repeats, "cpu")
    own = {f"score's own seconds, {way}": rounds[1:] for way, rounds in seconds.items()}
    same = (folder / "fresh/scores.json").read_bytes() == (folder / "warm/scores.json").read_bytes()
    report(
        options,
        "Commands, fresh and warm",
        {"first warm command, with loading": [loading], **times, **own},
        ratio_refused=ratio(times["refused, warm"], times["refused, fresh"]),
        ratio_score=ratio(times["score, warm"], times["score, fresh"]),
        ratio_own_seconds=ratio(*reversed(own.values())),
        same_scores=same,
    )


if __name__ == "__main__":
    main()
