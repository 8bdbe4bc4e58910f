"""The README and the documentation: what they say is there, and what they tell a reader to type is understood."""

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from entpruner.cli import command_line
from entpruner.params.files import schema

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))

import from_code  # noqa: E402

PAGES = [
    *ROOT.glob("*.md"),
    *sorted((ROOT / "docs").glob("[!_]*.md")),
    *sorted((ROOT / "docs").glob("[!_]*/*.md")),
    ROOT / "data/README.md",
    ROOT / "results/README.md",
]
README = (ROOT / "README.md").read_text()
PUBLISHED = ROOT / "results/published"


def rows_of(table: str) -> list[dict[str, str]]:
    """The rows of a published CSV file."""
    with (PUBLISHED / table).open() as file:
        return list(csv.DictReader(file))


def test_the_readme_is_short_and_begins_with_a_picture() -> None:
    assert len(README.split()) <= 800
    assert README.splitlines()[2].startswith("![")


def test_the_readme_s_table_is_the_published_one() -> None:
    assert from_code.results() in README


@pytest.mark.parametrize("study", ["text", "video"])
def test_what_is_said_of_the_toys_of_text_and_video_is_what_was_published(study: str) -> None:
    said = " ".join((ROOT / "docs/howto/text-and-video.md").read_text().split())
    assert "block influence and random sets overlap, and so do those of one shot and of stages" in said
    assert "that can be told apart from chance" in said
    for table in ("criteria", "schedules"):
        half = [row for row in rows_of(f"{study}/tables/{table}.csv") if row["ratio"] == "0.5"]
        assert len(half) >= 4 and {row["seeds"] for row in half} == {"3"}
        assert max(float(row["distance_low"]) for row in half) < min(float(row["distance_high"]) for row in half)
    audit = (PUBLISHED / study / "audit/README.md").read_text()
    assert "the distance after recovery, over random sets.** Cannot be told apart from no relation: " in audit


def test_what_is_said_of_few_sampling_steps_is_what_was_published() -> None:
    said = " ".join((ROOT / "docs/explanation/findings.md").read_text().split())
    assert "rise in this order on both networks, with both numbers of steps" in said
    assert "With few steps the intervals of LD-Pruner and EntPruner overlap" in said
    assert "On DiT fewer steps make each mean larger, and EntPruner's most." in said
    assert "On SiT they make each mean smaller, by 6 to 16 %, and the intervals overlap" in said
    rows = {(row["backbone"], row["method"]): row for row in rows_of("digits/tables/few_steps.csv")}
    assert len(rows) == 12 and {row["seeds"] for row in rows.values()} == {"3"}
    methods, times = ("full fine-tuning", "LD-Pruner", "EntPruner"), {}
    for backbone in ("dit", "sit"):
        usual, few = ([rows[backbone, method + end] for method in methods] for end in ("", ", 10 or 5"))
        for group in (usual, few):
            assert sorted(float(row["distance"]) for row in group) == [float(row["distance"]) for row in group]
        assert float(few[1]["distance_high"]) > float(few[2]["distance_low"])
        times[backbone] = [float(b["distance"]) / float(a["distance"]) for a, b in zip(usual, few, strict=True)]
        if backbone == "sit":
            assert all(float(b["distance_high"]) > float(a["distance_low"]) for a, b in zip(usual, few, strict=True))
    assert [round(100 * (1 - bound(times["sit"]))) for bound in (max, min)] == [6, 16]
    assert min(times["dit"]) > 1 and max(times["dit"]) == times["dit"][2]


def test_what_is_said_of_the_u_net_is_what_was_published() -> None:
    assert "There CED goes against what matters" in (ROOT / "docs/explanation/findings.md").read_text()
    audit = (PUBLISHED / "unet/audit/README.md").read_text()
    assert re.search(r"over random sets\.\*\* Goes against it: U-Net -0", audit)
    assert "networks of 14 blocks" in audit


def test_what_is_said_of_the_paper_s_depth_is_what_was_published() -> None:
    said = " ".join((ROOT / "docs/explanation/findings.md").read_text().split())
    assert "better than LD-Pruner's in no row, and all their intervals overlap" in said
    assert "random sets end more than eight times as far from the real images as CED's" in said
    rows = {(row["backbone"], row["ratio"], row["method"]): row for row in rows_of("deep/tables/table1.csv")}
    for backbone in ("dit", "sit"):
        for ratio in ("0.3", "0.5"):
            ours, rival = (rows[backbone, ratio, method] for method in ("EntPruner", "LD-Pruner"))
            assert float(ours["distance"]) > float(rival["distance"])
            assert float(ours["distance_low"]) < float(rival["distance_high"])
    effects = rows_of("deep/effects/untangled.csv")
    assert len(effects) == 24 and all(float(row["p, corrected"]) > 0.05 for row in effects)
    random = [row for row in effects if row["ratio of"] == "random / CED"]
    alone = {name: [row for row in random if row["network"].startswith(name)] for name in ("DiT", "SiT")}
    assert [len(found) for found in alone.values()] == [3, 3]
    assert all(float(row["ratio"]) > 8 and float(row["p"]) < 0.05 for row in alone["DiT"])
    assert all(float(row["p"]) > 0.05 for row in alone["SiT"])


def test_what_is_said_of_monitored_trainings_is_what_was_published() -> None:
    said = " ".join((ROOT / "docs/explanation/findings.md").read_text().split())
    assert "the intervals of SGD lie below AdamW's with each schedule" in said
    assert "stays between 598 and 601" in said and "between 12 and 22 % of the time" in said
    rows = {row["method"]: row for row in rows_of("monitor/tables/monitor.csv")}
    assert len(rows) == 18 and {row["seeds"] for row in rows.values()} == {"3"}
    for decay in ("constant", "cosine", "warm restarts"):
        adamw, sgd, muon = (rows[f"{optimizer}, {decay}"] for optimizer in ("AdamW", "SGD", "Muon"))
        assert float(sgd["kappa_last_high"]) < min(float(adamw["kappa_last_low"]), float(sgd["kappa_first_low"]))
        assert all(float(row["kappa_last_high"]) > float(row["kappa_first_low"]) for row in (adamw, muon))
        for row in (adamw, sgd, muon):
            assert all(598 < float(row[key]) < 601 for key in ("zico_first", "zico_last"))
    pruned = [row for row in rows.values() if row["ratio"]]
    assert len(pruned) == 9
    assert all(float(row["zico_last_high"]) < float(row["zico_first_low"]) for row in pruned)
    assert max(float(row["votes_low"]) for row in rows.values()) < min(
        float(row["votes_high"]) for row in rows.values()
    )
    shares = [float(row["monitoring"]) for row in rows.values()]
    assert min(shares) > 0.12 and max(shares) < 0.22


def test_what_is_said_of_criterion_and_schedule_is_what_was_published() -> None:
    assert "no criterion can be told from CED" in README
    findings = " ".join((ROOT / "docs/explanation/findings.md").read_text().split())
    assert "all schedules but one shot have the larger mean with every criterion" in findings
    rows = rows_of("untangled/effects/untangled.csv")
    criteria = [row for row in rows if row["effect of"] == "criterion"]
    assert len(rows) == 48 and len(criteria) == 24 and all(row["ratio of"].endswith(" / CED") for row in criteria)
    assert all(float(row["p, corrected"]) > 0.05 for row in criteria)
    on_dit = [row for row in rows if row["effect of"] == "schedule" and row["network"].startswith("DiT")]
    assert len(on_dit) == 12 and all(float(row["ratio"]) > 1 for row in on_dit)


def links(page: Path) -> Iterator[str]:
    """What the links and pictures of a page name, except for addresses elsewhere."""
    text = re.sub(r"^```(?!{).*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from (to for to in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in to)
    yield from re.findall(r"^```{include} (\S+)", page.read_text(), re.MULTILINE)
    for tree in re.findall(r"^```{toctree}\n(.*?)```", page.read_text(), re.MULTILINE | re.DOTALL):
        yield from (f"{entry}.md" for entry in re.findall(r"^[\w/-]+$", tree, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    assert [to for to in links(page) if not (page.parent / to).exists()] == []


def test_every_page_is_in_the_contents() -> None:
    listed = {(ROOT / "docs" / to).resolve() for to in links(ROOT / "docs/index.md")}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - {ROOT / "docs/index.md"}
    assert pages <= listed


def commands(program: str) -> list[str]:
    """The command lines of all pages that begin with a program, without comments and assignments before it."""
    found = []
    for page in PAGES:
        for line in re.findall(rf"^(?:    |\$ )(?:\w+=\S+ )?{program} (.*)$", page.read_text(), re.MULTILINE):
            found.append(re.sub(r"\s+#.*| &&.*", "", line))
    return sorted(set(found))


@pytest.mark.parametrize("line", commands("entpruner"))
def test_entpruner_understands_the_documented_commands(line: str) -> None:
    given = command_line().parse_args(shlex.split(line))
    for file in getattr(given, "files", ()):
        assert (ROOT / file).exists() or not str(file).startswith("params/")


@pytest.mark.parametrize("line", commands("snakemake"))
def test_snakemake_understands_the_documented_commands(line: str) -> None:
    from snakemake.cli import get_argument_parser

    given = get_argument_parser().parse_args(shlex.split(line))
    assert all((ROOT / file).exists() for file in given.configfile or ())


def test_make_has_the_documented_commands() -> None:
    named = {line.split()[0] for line in commands("make")}
    named |= set(re.findall(r"`make ([a-z-]+)", "".join(page.read_text() for page in PAGES)))
    [targets] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named <= set(targets.split())
    assert (
        subprocess.run(["make", "--dry-run", *sorted(named - {"restore", "save"})], cwd=ROOT, check=False).returncode
        == 0
    )


def test_the_reference_has_every_section_and_command() -> None:
    params = from_code.params()
    assert {"## Study", "## ArmSpec", "## Training"} <= set(params.splitlines())
    assert all(f"## entpruner {name}\n" in from_code.commands() for name in from_code.subcommands(command_line()))
    assert "| `make results` |" in from_code.make()
    assert from_code.gallery().count("](../results/published/digits/figures/") == 7


def test_every_key_of_a_params_file_is_described() -> None:
    whole = schema()
    sections = {"Study": whole, **whole["$defs"]}
    keys = {(name, key): node for name, section in sections.items() for key, node in section["properties"].items()}
    assert len(keys) > 200
    assert [place for place, node in keys.items() if not node.get("description")] == []


def test_zenodo_is_told_the_title_licence_and_authors_that_are_cited() -> None:
    zenodo = json.loads((ROOT / ".zenodo.json").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (zenodo["title"], zenodo["license"]) == (citation["title"], citation["license"])
    assert [one["name"] for one in zenodo["creators"]] == [one["name"] for one in citation["authors"]]


def test_a_set_up_without_cuda_takes_all_else_from_the_lock() -> None:
    """As make would do it, but for the installation."""
    recipe = subprocess.run(
        ["make", "--dry-run", "--always-make", ".venv/ready", "TORCH=cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    [command] = re.findall(r"^awk .*(?= > )", recipe, re.MULTILINE)
    left = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    whole = re.findall(r"^([a-z]\S*)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    kept = re.findall(r"^([a-z]\S*)==(\S+)", left, re.MULTILINE)
    gone = {name: version for name, version in whole if (name, version) not in kept}
    assert {"torch", "torchvision", "triton"} < gone.keys()
    assert all(re.match("torch|triton|cuda-|nvidia-", name) for name in gone) and "torch-fidelity" not in gone
    assert f"whl/cpu torch=={gone['torch']} torchvision=={gone['torchvision']}\n" in recipe
    assert left.count("--hash=") > len(kept)
