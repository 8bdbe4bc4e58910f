"""A finished study in small: the files that its rules would leave, with made-up numbers, and no training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from entpruner.models.checkpoints import ModelCard
from entpruner.params.files import read_study
from entpruner.study.arms import expand
from entpruner.system.files import write_json

PARAMS = Path(__file__).parents[1] / "params"
RECORD = {"seconds": 3.0, "device": "a processor", "threads": 1, "python": "3.1", "torch": "2.1", "commit": "abc123"}
ROW = ("EntPruner", "sit", "downstream", "50%")


def record(**more: Any) -> dict[str, Any]:
    """What a command writes as timing.json."""
    return RECORD | {"settings": {"seed": 0}, "code": "c0de"} | more


def write_table(
    study: Path, name: str, rows: Mapping[tuple[str, str, str, str], Mapping[str, Any]], seeds: Sequence[int] = (0,)
) -> None:
    """The provenance of a table: by row, the value of each column, or its values at each seed.

    The numbers lie where it says: in the arms' metrics.json, under the column's name (``fd_classifier``: distance).
    """
    arms, records = {}, []
    for method, backbone, data, ratio in rows:
        folders = {seed: f"results/{study.name}/arms/{method}-{backbone}-{data}-{ratio}-s{seed}" for seed in seeds}
        settings = {"finetune": {"steps": 600}}
        arms |= {
            folder: {"settings": settings, "code": "c0de", "commit": "abc123", "kept_blocks": [0, 2], "seed": seed}
            for seed, folder in folders.items()
        }
        metrics: dict[int, dict[str, Any]] = {seed: {} for seed in seeds}
        cells = {}
        for column, given in rows[method, backbone, data, ratio].items():
            values = given if isinstance(given, tuple) else (given,) * len(seeds)
            key = "fd_classifier" if column == "distance" else column
            sources = [
                {"arm": folders[seed], "file": f"{folders[seed]}/metrics.json", "key": key}
                for seed, value in zip(seeds, values, strict=True)
                if value is not None
            ]
            for seed, value in zip(seeds, values, strict=True):
                metrics[seed][key] = value
            mean = None if None in values else sum(values) / len(values) if len(values) > 1 else values[0]
            std = None
            if mean is not None and isinstance(given, tuple) and len(seeds) > 1:
                std = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
            quartiles = [mean - 0.1, mean + 0.2] if column == "speedup" else None
            cells[column] = {"value": mean, "std": std, "quartiles": quartiles, "sources": sources}
        for seed in seeds:
            floor = {"fd_classifier_floor": 2.0, "fd_classifier_floor_std": 0.2}
            write_json(study / "arms" / Path(folders[seed]).name / "metrics.json", metrics[seed] | floor)
        identity = {"method": method, "backbone": backbone, "data": data, "ratio": ratio}
        command = f"snakemake --cores all {' '.join(f'{folder}/metrics.json' for folder in folders.values())}"
        records.append({**identity, "blocks": "2/4", "seeds": f"n={len(seeds)}", "command": command, "cells": cells})
    content = {"table": name, "caption": "A caption", "arms": arms, "rows": records}
    write_json(study / "tables" / f"{name}.provenance.json", content)


def finish_smoke(results: Path) -> None:
    """All files of results/smoke that its tables are built from, and the arms' curves."""
    study = read_study([PARAMS / "smoke.yaml"])
    blocks = {"parameters": 1000, "macs": 2000, "speedup": 1.5, "speedup_quartiles": [1.4, 1.6]}
    for arm in expand(study).values():
        folder = results / "arms" / arm.key
        fd = 3.0 + len(arm.key) / 7
        card = ModelCard(
            architecture=study.backbones[arm.backbone].architecture(8, 1, 5),
            kept_blocks=tuple(range(arm.depth - arm.blocks_removed)),
            process=study.backbones[arm.backbone].process,
            class_names=("5", "6", "7", "8", "9"),
        )
        write_json(folder / "final/model.json", card.model_dump(mode="json"))
        totals = {"total_steps": 16, "total_flops": 1e9 + len(arm.key), "total_seconds": 2.5, "trained_parameters": 900}
        write_json(folder / "final/timing.json", record(settings={"stage": 1}, **totals))  # of the recovery
        (folder / "final/curve.jsonl").write_text('{"step": 16, "loss": 0.5}\n')
        write_json(results / f"adapt/{arm.backbone}-{arm.data}-s{arm.seed}/timing.json", record(**totals))
        for cut in ("", "cut-"):
            write_json(folder / f"{cut}samples/timing.json", record())
            write_json(folder / f"{cut}metrics.timing.json", record())
            metrics = {
                "fd_classifier": fd,
                "fd_classifier_ratio": fd / 2,
                "kid_classifier": fd / 1e4,
                "agreement": 0.98,
            }
            write_json(folder / f"{cut}metrics.json", metrics)
        counts = {str(kept): blocks for kept in range(1, arm.depth + 1)}
        write_json(results / f"cost/{arm.backbone}-{arm.data}.json", {"blocks": counts, "timing": record()})
