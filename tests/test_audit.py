"""A whole tiny audit by its commands, three seeds of one backbone: what each leaves, a kill in between, the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from entpruner.cli import main

COMPUTE = {"device": "cpu", "threads": 1}
BACKBONE = {"process": {"kind": "flow"}, "depth": 5, "hidden_size": 16, "num_heads": 2, "patch_size": 4}
TRAINING = {"steps": 8, "batch_size": 8, "learning_rate": 1e-2}
SAMPLING = {"samples": 12, "batch_size": 12, "flow": {"name": "euler", "steps": 2}}
CRITERIA = {
    "ced": {"criterion": "ced"},
    "ced_signed": {"criterion": "ced", "rank_by": "signed"},
    "sensitivity": {"criterion": "sensitivity"},
    "random": {"criterion": "random"},
}
CANDIDATES = [{"ratio": 0.4, "steps": 1}, {"ratio": 0.6, "steps": 1}]
SEEDS = (0, 1, 2)


def entpruner(command: str, settings: dict[str, Any], **paths: Path) -> int:
    options = [text for name, path in paths.items() for text in (f"--{name}", str(path))]
    return main([command, "--settings", json.dumps(settings), *options])


def common(seed: int) -> dict[str, Any]:
    scoring = {"draws": 16, "batch_size": 16}
    return {"artefact": "audit/sit", "seed": seed, "scoring": scoring, "compute": COMPUTE}


def bench(seed: int) -> dict[str, Any]:
    return common(seed) | {"sampling": SAMPLING, "finetune": TRAINING, "evaluation": {}}


def trials(root: Path, out: Path) -> int:
    settings = bench(0) | {"trials": {"candidates": CANDIDATES, "masks": 3, "repeats": 2, "share": 0.99}}
    return entpruner("audit_regime", settings, **starts(root, 0), classifier=root / "net", out=out)


def masks(root: Path, seed: int, out: Path) -> int:
    settings = bench(seed) | {"masks": 4, "chains": 2, "ratios": (0.4, 0.8)}
    paths = {"classifier": root / "net", "regime": root / "audit/regime/sit.json"}
    return entpruner("audit_masks", settings, **starts(root, seed), **paths, out=out)


def starts(root: Path, seed: int) -> dict[str, Path]:
    return {"store": root / "store", "init": root / f"start-s{seed}"}


def file_of(root: Path, part: str, seed: int) -> Path:
    return root / f"audit/{part}/sit-s{seed}.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    data = {"dataset": {"source": "digits", "classes": (3, 4)}}
    assert entpruner("data", data, out=root / "store") == 0
    fit = {"steps": 3, "batch_size": 8, "width": 4, "features": 8}
    net = {"artefact": "classifier", "seed": 0, "training": fit, "compute": COMPUTE}
    assert entpruner("classifier", net, store=root / "store", out=root / "net") == 0
    for seed in SEEDS:
        pretrain = {"artefact": "p", "seed": seed, "backbone": BACKBONE, "training": TRAINING, "compute": COMPUTE}
        assert entpruner("pretrain", pretrain, store=root / "store", out=root / f"start-s{seed}") == 0
    regime = root / "audit/regime/sit.json"
    assert trials(root, regime) == 0
    for seed in SEEDS:
        paths = starts(root, seed)
        assert masks(root, seed, file_of(root, "masks", seed)) == 0
        score = common(seed) | {"sampling": SAMPLING, "criteria": CRITERIA}
        scores = file_of(root, "scores", seed)
        assert entpruner("audit_scores", score, **paths, regime=regime, out=scores) == 0
        out = file_of(root, "choices", seed)
        chosen = paths | {"classifier": root / "net", "regime": regime, "scores": scores}
        assert entpruner("audit_choices", bench(seed), **chosen, out=out) == 0
        sweeps = {"samples": (2, 3), "batches": (8, 9), "repeats": 2}
        proxies = common(seed) | {"proxies": {"zico": {"batch_size": 2}}, "sweeps": sweeps}
        out = file_of(root, "proxies", seed)
        assert entpruner("audit_proxies", proxies, **paths, masks=file_of(root, "masks", seed), out=out) == 0
    return root


def report(root: Path, seeds: tuple[int, ...] = SEEDS) -> str:
    scope = {"study": "tiny", "backbones": ("sit",), "data": "d", "seeds": seeds, "samples": 12, "distance": "fd_net"}
    assert entpruner("audit_report", scope, results=root, out=root / "audit/README.md") == 0
    return (root / "audit/README.md").read_text()


def test_x(root: Path) -> None:
    print(report(root))
