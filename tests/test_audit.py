"""A whole tiny audit by its commands, three seeds of a transformer and of a U-Net: what each leaves, a kill in between,
the report."""

import csv
import json
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from small_training import Kill

from entpruner.audit.commands import audit_masks
from entpruner.cli import main
from entpruner.layout import Layout
from entpruner.params.audit import Audit, AuditedCriterion
from entpruner.params.backbones import Backbone
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import read_json

COMPUTE = {"device": "cpu", "threads": 1}
BACKBONES: dict[str, dict[str, Any]] = {  # of five blocks each
    "sit": {"process": {"kind": "flow"}, "depth": 5, "hidden_size": 16, "num_heads": 2, "patch_size": 4},
    "unet": {"process": {"kind": "flow"}, "unet": {"channels": 8, "blocks_per_level": 1, "middle_blocks": 1}},
}
TRAINING = {"steps": 8, "batch_size": 8, "learning_rate": 1e-2}
SAMPLING = {"samples": 12, "batch_size": 12, "flow": {"name": "euler", "steps": 2}}
CRITERIA = {
    "ced": AuditedCriterion(criterion="ced"),
    "ced_signed": AuditedCriterion(criterion="ced", rank_by="signed"),
    "sensitivity": AuditedCriterion(criterion="sensitivity"),
    "random": AuditedCriterion(criterion="random"),
    "random_median": AuditedCriterion(criterion="random_median"),
    "learned": AuditedCriterion(criterion="learned", scoring={"learned": {"steps": 2, "batch_size": 4, "groups": 1}}),
}
CANDIDATES = [{"ratio": 0.4, "steps": 1}, {"ratio": 0.6, "steps": 1}]
SEEDS = (0, 1, 2)
REFERENCE = Path(__file__).parents[1] / "params/reference.yaml"

STAGES = 2
START, IMAGES = ("store", "init"), ("pixels", "classifier")
PATHS = {  # part -> the files that its command is given
    "regime": (*START, *IMAGES),
    "masks": (*START, *IMAGES, "regime"),
    "scores": (*START, "regime"),
    "choices": (*START, *IMAGES, "scores"),
    "proxies": (*START, "masks"),
    "schedules": (*START, *IMAGES, "regime"),
    "stability": (*START, "upstream", "pretrained"),
    "stages": (*START, *IMAGES, "stages", "final"),
    "outputs": START,
}
BENCH: dict[str, Any] = {"sampling": SAMPLING, "finetune": TRAINING, "evaluation": {}}
VOTED = {"pruning": {"stages": STAGES}, "proxies": {"ntk": {"samples": 3}, "zico": {"batch_size": 2}}}
SETTINGS: dict[str, dict[str, Any]] = {  # of scores they depend on the backbone
    "regime": BENCH | {"trials": {"candidates": CANDIDATES, "masks": 3, "repeats": 2, "share": 0.99}},
    "masks": BENCH | {"masks": 4, "chains": 2, "ratios": (0.4, 0.8)},
    "choices": BENCH,
    "proxies": {
        "proxies": {"zico": {"batch_size": 2}},
        "sweeps": {"samples": (2, 3), "batches": (8, 9), "repeats": 2},
    },
    "schedules": BENCH
    | {
        **VOTED,
        "paper": {"ratio": 0.4, "steps": 8},
        "weights": (0.5, 1.0),
    },
    "stability": {"draws": (8,), "repeats": 2, "finetune": TRAINING, "steps": 8},
    "stages": BENCH | VOTED | {"redraws": 3, "optimizer": "adamw"},
    "outputs": {"sampling": SAMPLING, "samples": 24},
}


def entpruner(command: str, settings: dict[str, Any], **paths: Path | list[Path]) -> int:
    given = {name: path if isinstance(path, list) else [path] for name, path in paths.items()}
    options = [text for name, several in given.items() for text in (f"--{name}", *map(str, several))]
    return main(["rule", command, "--settings", json.dumps(settings), *options])


def file_of(root: Path, part: str, seed: int, backbone: str = "sit") -> Path:
    return root / (f"audit/regime/{backbone}.json" if part == "regime" else f"audit/{part}/{backbone}-s{seed}.json")


def measure(root: Path, part: str, seed: int, backbone: str = "sit", out: Path | None = None, **changed: Any) -> None:
    """Run the command of one part of the audit."""
    files = {
        name: root / folder for name, folder in {"pixels": "store", "classifier": "net", "upstream": "store"}.items()
    }
    files |= {"store": root / "store"} | dict.fromkeys(("init", "pretrained"), root / f"{backbone}-s{seed}")
    files |= {name: file_of(root, name, seed, backbone) for name in ("regime", "scores", "masks")}
    left: dict[str, Any] = dict(zip(("stages", "final"), left_by_the_arm(root, seed), strict=True))
    scoring = {"draws": 16, "batch_size": 16, "masks": 5}
    common = {"artefact": f"audit/{backbone}", "seed": seed, "scoring": scoring, "compute": COMPUTE}
    paths = {name: (left | files)[name] for name in PATHS[part]}
    out = out or file_of(root, part, seed, backbone)
    assert entpruner(f"audit_{part}", common | SETTINGS.get(part, {}) | changed, **paths, out=out) == 0


def arm_of(seed: int) -> ArmIdentity:
    """The arm of the tiny study whose stages are followed."""
    return ArmIdentity(
        name="entpruner", label="EntPruner", backbone="sit", process="flow", data="d", schedule="vote",
        criterion="ced", ratio=0.4, seed=seed, depth=5, start="adapted",
    )  # fmt: skip


def left_by_the_arm(root: Path, seed: int) -> tuple[list[Path], Path]:
    """The folders of its stages and of its recovery."""
    paths, key = Layout.at(root), arm_of(seed).key
    return [paths.stage(key, stage).path for stage in range(1, STAGES + 1)], paths.final(key).path


def prune(root: Path, seed: int) -> None:
    """Score the blocks of a network, and prune two of them by the vote."""
    (store, init), scored = (root / "store", root / f"sit-s{seed}"), root / f"scores/sit-d-s{seed}/ced"
    common = {"artefact": "arm", "seed": seed, "compute": COMPUTE}
    ranking = {"criterion": "ced", "scoring": {"draws": 16, "batch_size": 16}}
    assert entpruner("score", common | ranking, store=store, init=init, out=scored) == 0
    stages, final = left_by_the_arm(root, seed)
    for stage, out in enumerate(stages, start=1):
        settings = common | VOTED | {"training": TRAINING, "schedule": "vote", "stages": STAGES, "total": 2}
        settings |= {"stage": stage, "start": 2 * stage - 2, "stop": 2 * stage}
        assert entpruner("prune", settings, store=store, init=init, scores=scored / "scores.json", out=out) == 0
        init = out
    settings = common | {"training": TRAINING, "stage": STAGES + 1, "start": 4, "stop": 8}
    assert entpruner("recover", settings, store=store, init=init, out=final) == 0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    data = {"dataset": {"source": "digits", "classes": (3, 4)}}
    assert entpruner("data", data, out=root / "store") == 0
    fit = {"steps": 3, "batch_size": 8, "width": 4, "features": 8}
    net = {"artefact": "classifier", "seed": 0, "training": fit, "compute": COMPUTE}
    assert entpruner("classifier", net, store=root / "store", out=root / "net") == 0
    for backbone, architecture in BACKBONES.items():
        for seed in SEEDS:
            pretrain = {"artefact": "p", "seed": seed, "training": TRAINING, "stop": TRAINING["steps"]}
            pretrain |= {"compute": COMPUTE, "backbone": architecture}
            assert entpruner("pretrain", pretrain, store=root / "store", out=root / f"{backbone}-s{seed}") == 0
        measure(root, "regime", 0, backbone)
        criteria = Audit.model_construct(criteria=CRITERIA).criteria_for(Backbone(**architecture))
        asked = {name: audited.model_dump(mode="json") for name, audited in criteria.items()}
        for seed in SEEDS:
            measure(root, "masks", seed, backbone, **({} if backbone == "sit" else {"chains": 0}))
            measure(root, "scores", seed, backbone, sampling=SAMPLING, criteria=asked)
            if backbone == "sit":
                prune(root, seed)
            of_transformers = ("proxies", "schedules", "stages") if backbone == "sit" else ()
            for part in ("choices", "stability", "outputs", *of_transformers):
                measure(root, part, seed, backbone)
    return root


SCOPE = {
    "study": "tiny",
    "backbones": tuple(BACKBONES),
    "unets": ("unet",),
    "data": "d",
    "seeds": SEEDS,
    "criteria": tuple(CRITERIA),
    "samples": 12,
    "distance": "fd_net",
    "claimed": (),
    "weights": (0.25, 0.5),
    "followed": [{"arm": arm_of(seed).model_dump(), "scores": "ced", "stages": STAGES} for seed in SEEDS],
}


def write_report(root: Path, **changed: Any) -> str:
    out = root / "audit/README.md"
    assert entpruner("audit_report", SCOPE | changed, results=root, reference=REFERENCE, out=out) == 0
    page = out.read_text()
    assert len(page.splitlines()) <= 80 and "(detail.md)" in page
    return out.with_name("detail.md").read_text()


# ------------------------------------------------------------------------------------------------ what they leave


def test_the_regime_is_chosen_by_random_masks_and_keeps_all_that_was_tried(root: Path) -> None:
    content = read_json(root / "audit/regime/sit.json")
    assert [trial["regime"] for trial in content["trials"]] == CANDIDATES
    assert all(len(trial["distances"]) == 3 and len(trial["distances"][0]) == 2 for trial in content["trials"])
    assert not content["reached"]  # a share of 0.99 was asked for
    best = max(content["trials"], key=lambda trial: trial["share"]["value"])
    assert content["regime"] == best["regime"]
    assert content["size"] == len(best["masks"][0])


def test_each_seed_measures_its_own_masks_of_the_regimes_size(root: Path) -> None:
    size = read_json(root / "audit/regime/sit.json")["size"]
    drawn = []
    for seed in SEEDS:
        content = read_json(file_of(root, "masks", seed))
        assert content["unpruned"]["dropped"] == []
        assert [record["dropped"] for record in content["blocks"]] == [[block] for block in range(5)]
        assert {len(record["dropped"]) for record in content["masks"]} == {size}
        assert [[len(record["dropped"]) for record in chain] for chain in content["chains"]] == [[2, 4], [2, 4]]
        drawn.append([record["dropped"] for record in content["masks"]])
    assert drawn[0] != drawn[1] != drawn[2]


def test_a_u_net_is_audited_without_what_knows_transformers_alone(root: Path) -> None:
    for seed in SEEDS:
        measured = read_json(file_of(root, "masks", seed, "unet"))
        assert [record["dropped"] for record in measured["blocks"]] == [[block] for block in range(5)]
        assert len({record["distance"] for record in measured["blocks"]}) == 5
        assert measured["chains"] == []
        assert read_json(file_of(root, "choices", seed, "unet"))["choices"].keys() == CRITERIA.keys() - {"learned"}
    text = write_report(root)
    assert "unet: a U-Net. To leave out one of its residual blocks" in text
    assert "sit: a U-Net" not in text
    with (root / "audit/criteria_unet_sets.csv").open() as file:
        assert [row["criterion"] for row in csv.DictReader(file)] == list(CRITERIA)[:-1]
    assert {file.name for file in (root / "audit").glob("proxies_*.csv")} == {
        "proxies_sit_one_size.csv",
        "proxies_sit_depths.csv",
    }


def test_a_choice_is_the_lowest_of_what_the_criterion_ranks_by(root: Path) -> None:
    size = read_json(root / "audit/regime/sit.json")["size"]
    entries = read_json(file_of(root, "scores", 0))["criteria"]
    choices = read_json(file_of(root, "choices", 0))["choices"]
    assert entries["ced"]["scores"]["signed"] == entries["ced_signed"]["scores"]["signed"]
    for name, key in (("ced", "value"), ("ced_signed", "signed"), ("random", "value")):
        ranked = sorted(range(5), key=lambda block: entries[name]["scores"][key][block])
        assert choices[name]["dropped"] == sorted(ranked[:size])


def test_the_proxies_are_of_the_measured_masks_at_every_setting(root: Path) -> None:
    masks, found = (read_json(file_of(root, part, 1)) for part in ("masks", "proxies"))

    def dropped(content: Any) -> list[Any]:
        records = [*content["masks"], *chain.from_iterable(content["chains"])]
        return [record["dropped"] for record in records]

    assert dropped(masks) == dropped(found)
    record = found["masks"][0]
    assert [len(repeats) for repeats in record["log10_kappa"]] == [2, 2]  # N by repeat
    assert [len(repeats) for repeats in record["zico_sum"]] == [2, 2]
    first, second = record["zico_mean"][0]
    assert first != second


def test_schedules_are_compared_at_equal_steps_and_at_equal_flops(root: Path) -> None:
    content = read_json(file_of(root, "schedules", 0))["paper"]
    runs = {(run["schedule"], run["budget"]): run for run in content["schedules"]}
    assert len(runs) == len(content["schedules"]) == 7
    at_once = runs["one_shot", "steps"]
    for (schedule, budget), run in runs.items():
        assert run["decisions"][-1]["removed"] == content["size"] == 2
        if budget == "steps":
            assert run["steps"] == 8
        else:  # as near to what pruning at once cost as whole steps allow, had it decided the same
            again = runs[schedule, "steps"]
            assert run["steps"] == round(8 * at_once["flops"] / again["flops"]) <= 8
    assert runs["linear", "steps"]["flops"] > at_once["flops"]


def test_equal_weights_are_the_vote_itself(root: Path) -> None:
    for regime in ("paper", "hard"):
        content = read_json(file_of(root, "schedules", 1))[regime]
        vote = next(run for run in content["schedules"] if (run["schedule"], run["budget"]) == ("vote", "steps"))
        equal, ntk_alone = content["weights"]
        assert equal["distance"] == vote["distance"]
        assert [decision["dropped"] for decision in equal["decisions"]] == [d["dropped"] for d in vote["decisions"]]
        assert ntk_alone["weights"] == {"ntk": 1.0, "zico": 0.0}


def test_ced_is_ranked_on_independent_draws_and_after_training(root: Path) -> None:
    content = read_json(file_of(root, "stability", 0))
    assert content["draws"].keys() == {"8", "16"}  # the study's own number too
    first, second = content["draws"]["16"]
    assert first["value"] != second["value"]
    assert content["pretrained"][0] == first  # here the same network on the same data
    assert content["finetuned"][0]["value"] != first["value"]


def test_every_file_says_how_it_was_made_and_no_journal_is_left(root: Path) -> None:
    for file in (root / "audit").glob("*/*.json"):
        assert len(read_json(file)["timing"]["code"]) == 16
    assert not list(root.rglob("*.resume"))


def test_the_stages_of_an_arm_are_followed_with_its_own_votes_on_other_samples(root: Path) -> None:
    for seed in SEEDS:
        stages, _ = left_by_the_arm(root, seed)
        decisions = [read_json(stage / "decision.json") for stage in stages]
        content = read_json(file_of(root, "stages", seed))
        (vote,) = content["votes"]  # the last stage has no choice
        assert vote["decision"].items() <= decisions[0].items()
        assert [len(candidate["draws"]) for candidate in vote["candidates"]] == [3, 3, 3]
        assert len({drawn["kappa"] for drawn in vote["candidates"][0]["draws"]}) == 3
        moments = content["moments"]
        cuts = [stage for stage, decision in enumerate(decisions, start=1) if decision["dropped"]]
        assert [moment["stage"] for moment in moments if moment["after"] == "a cut"] == cuts
        assert [moment["blocks"] for moment in moments if moment["after"] == "a stage"] == [
            len(decision["kept_blocks"]) for decision in decisions
        ]
        assert (moments[0]["blocks"], moments[-1]["blocks"], moments[-1]["after"]) == (5, 3, "recovery")
        assert moments[0]["draws"] == vote["candidates"][0]["draws"]  # to stay is the network as it is
        unpruned = read_json(file_of(root, "masks", seed))["unpruned"]
        assert moments[0]["distance"] == unpruned["distance_before"]


def test_outputs_are_those_that_ced_is_taken_of(root: Path) -> None:
    for backbone in BACKBONES:
        content = read_json(file_of(root, "outputs", 0, backbone))
        scores = read_json(file_of(root, "scores", 0, backbone))["criteria"]["ced"]["scores"]
        prediction, samples = content["outputs"]["prediction"], content["outputs"]["samples"]
        whole, *without = prediction["entropies"]["scalar"]
        assert [one - whole for one in without] == pytest.approx(scores["signed"], abs=1e-9)
        assert (prediction["draws"], samples["draws"]) == (16, 24)
        assert prediction["entropies"]["low_rank"] == [None] * 6  # 16 draws are too few, and 24 are enough
        assert None not in samples["entropies"]["low_rank"]
        assert len(samples["shapes"]) == 6


# ------------------------------------------------------------------------------------------------ killed in between


def without_seconds(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: without_seconds(value) for key, value in content.items() if key not in ("seconds", "timing")}
    return [without_seconds(value) for value in content] if isinstance(content, list) else content


def test_a_killed_command_goes_on_after_its_last_record_and_ends_with_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, genuine = tmp_path / "masks.json", audit_masks.measured
    calls: list[int] = []

    def killed_at_the_fourth(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise Kill
        return genuine(*arguments, **options)

    monkeypatch.setattr(audit_masks, "measured", killed_at_the_fourth)
    with pytest.raises(Kill):
        measure(root, "masks", 0, out=out)
    (journal,) = (tmp_path / "masks.json.resume").iterdir()
    journal.write_bytes(journal.read_bytes() + b'{"name": "torn')  # as a kill in the middle of a line leaves it
    measure(root, "masks", 0, out=out)
    whole = read_json(file_of(root, "masks", 0))
    distinct = 1 + 5 + len(whole["masks"]) + sum(map(len, whole["chains"]))
    assert len(calls) - 4 == distinct - 3
    assert without_seconds(read_json(out)) == without_seconds(whole)
    assert list(tmp_path.iterdir()) == [out]


# ------------------------------------------------------------------------------------------------------- the report


def test_the_report_shows_every_table_and_figure_that_lies_beside_it(root: Path) -> None:
    text = write_report(root)
    page = (root / "audit/README.md").read_text()
    for linked in re.findall(r"\]\(([^)]+)\)", page + text):
        assert (root / "audit" / linked).stat().st_size > 0
    for title in ("## The regime", "## 1. Does the score predict", "## 2. Do the proxies predict"):
        assert title in text
    assert "3 seeds × 5 single blocks" in text
    with (root / "audit/criteria_sit_sets.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["criterion"] for row in rows] == list(CRITERIA)
    distances = [read_json(file_of(root, "choices", seed))["choices"]["ced"]["distance"] for seed in SEEDS]
    assert float(rows[0]["distance after recovery"]) == pytest.approx(sum(distances) / 3)


def test_the_report_says_what_seeds_share_and_what_was_shortened(root: Path) -> None:
    usual = write_report(root)
    assert "each trained from nothing" in usual and "shrunk to" not in usual
    text = write_report(root, imported=("sit",), finetune_steps=8)
    assert "sit: published weights, the same for every seed. A seed changes the training that moved them to d" in text
    assert "unet: trained from nothing with each seed." in text and "each trained from nothing" not in text
    assert "The study's fine-tuning is shrunk to 8 steps" in text


def test_criteria_that_only_choose_sets_have_no_correlation_to_draw(root: Path) -> None:
    text = write_report(root, criteria=("random_median",))
    assert "![" not in text.split("## 2.")[0].split("## 1.")[1]
    assert [line for line in text.splitlines() if line.startswith("| random_median")]


def test_the_same_evidence_gives_the_same_report_to_the_byte(root: Path) -> None:
    files = [
        root / "audit/README.md",
        root / "audit/detail.md",
        *(root / "audit").glob("*.csv"),
        *(root / "audit").glob("*.png"),
    ]
    write_report(root)
    first = [file.read_bytes() for file in files]
    write_report(root)
    assert [file.read_bytes() for file in files] == first
