"""The pages of the paper's public numbers: arithmetic that holds, our numbers from our files, no verdict."""

from pathlib import Path
from typing import Any

import pytest

from entpruner.audit.report import chapter_claims as claims
from entpruner.audit.report.evidence import AuditScope, Evidence
from entpruner.evaluation.cost import parameters
from entpruner.models.arithmetic import macs
from entpruner.models.transformer import Transformer
from entpruner.params.backbones import Architecture
from entpruner.reporting.records import Records
from entpruner.reporting.reference import Reference
from entpruner.study.arms import ArmIdentity
from entpruner.system.files import write_json

REFERENCE = Reference.read(Path(__file__).parents[1] / "params/reference.yaml")
CLAIMS = {claim.name: claim for claim in REFERENCE.claims}


KINDS: dict[str, dict[str, Any]] = {
    "unpruned": {"schedule": "none", "criterion": None, "ratio": None},
    "ld_pruner": {"schedule": "one_shot", "criterion": "ld_pruner", "ratio": 0.5},
    "entpruner": {"schedule": "vote", "criterion": "ced", "ratio": 0.5},
}


def evidence(results: Path, seeds: int = 2, kinds: tuple[str, ...] = tuple(KINDS)) -> Evidence:
    """A study in which EntPruner's distance is 3 + seed, LD-Pruner's 4 + seed and the unpruned network's 2."""
    claimed = []
    for seed in range(seeds):
        distance = {"unpruned": 2.0, "ld_pruner": 4.0 + seed, "entpruner": 3.0 + seed}
        for kind in kinds:
            common = {"name": kind, "label": kind, "backbone": "sit", "process": "flow", "data": "downstream"}
            arm = ArmIdentity(**common, **KINDS[kind], seed=seed, depth=4, start="adapted")
            folder = results / "arms" / arm.key
            write_json(folder / "metrics.json", {"fd_net": distance[kind]})
            write_json(folder / "final/model.json", {"kept_blocks": [0, 1, 2, 3] if kind == "unpruned" else [0, 3]})
            claimed.append({"kind": kind, "arm": arm})
    write_json(results / "cost/sit-downstream.json", {"blocks": {"4": {"speedup": 1.0}, "2": {"speedup": 1.9}}})
    write_json(results / "data/downstream/manifest.json", {"shape": [1, 8, 8], "source": {"source": "digits"}})
    scope = {"study": "tiny", "backbones": ["sit"], "data": "downstream", "seeds": [0, 1], "samples": 8, "criteria": []}
    return Evidence(Records(results), AuditScope(**scope, distance="fd_net", claimed=claimed), REFERENCE)


@pytest.mark.parametrize(
    ("claim", "values"),
    [("speedup", (1.9,)), ("mean_rise", (1.0, 2.0)), ("flowers", (25.0, 20.0)), ("imagenet", None)],
)
def test_our_side_of_a_claim_is_what_the_arms_files_say(
    claim: str, values: tuple[float, ...] | None, tmp_path: Path
) -> None:
    lines = claims.lines_of(CLAIMS[claim], evidence(tmp_path))
    assert [line.values for line in lines] == ([pytest.approx(values)] if values else [])


def test_each_claim_has_a_page_that_neither_confirms_nor_refutes(tmp_path: Path) -> None:
    pages = claims.write(evidence(tmp_path)).pages
    assert pages.keys() == {f"claims/{name}.md" for name in CLAIMS} and len(CLAIMS) == 5
    for name, page in ((name, pages[f"claims/{name}.md"]) for name in CLAIMS):
        assert page.startswith(f"# {CLAIMS[name].says}\n")
        assert CLAIMS[name].takes in page
        assert ("neither confirms nor refutes" in page) != ("no arms of this kind" in page)
    assert "One seed" not in pages["claims/mean_rise.md"]
    assert "| sit | downstream | 2 | +1.50 [-4.85, +7.85] |" in pages["claims/mean_rise.md"]
    timed = pages["claims/speedup.md"]  # a time is one measurement, however many seeds there are
    assert "| sit | downstream | 1 | 1.90× |" in timed and "Timed once" in timed and "One seed" not in timed


@pytest.mark.parametrize(
    ("study", "said"),
    [({"seeds": 1}, "One seed: how far another"), ({"kinds": ("entpruner",)}, "no arms of this kind")],
)
def test_a_page_says_what_its_study_lacks(study: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in claims.write(evidence(tmp_path, **study)).pages["claims/mean_rise.md"]


def test_the_arithmetic_of_the_reference_holds() -> None:
    xl = Architecture(
        depth=28, hidden_size=1152, num_heads=16, patch_size=2, input_size=32, in_channels=4, num_classes=1000
    )
    speedup = " ".join(CLAIMS["speedup"].arithmetic)
    assert f"bounds the speed-up of the blocks' compute at {28 / 14:.2f}×" in speedup
    assert macs(xl) / macs(xl, 14) < 2
    assert f"2.22× would need {28 / 2.22:.1f} of the 28 blocks" in speedup
    [improvement] = CLAIMS["over_ld_pruner"].arithmetic
    assert f"(6.81 − 3.53) / 6.81 = {(6.81 - 3.53) / 6.81:.2%}".replace("%", " %") in improvement
    notes = " ".join(note.text for note in REFERENCE.notes)
    one, two = (Transformer(xl, tuple(range(blocks))) for blocks in (1, 2))
    block = parameters(two) - parameters(one)
    rest = parameters(one) - block - one.pos_embed.numel()  # the published count leaves the position table out
    for kept in (14, 19, 20, 28):
        assert f"{(rest + kept * block) / 1e6:.1f} M" in notes
