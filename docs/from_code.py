"""The parts of the documentation that are made from the code and from the published results, as Markdown."""

import argparse
import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from entpruner.cli import command_line
from entpruner.params.files import schema
from entpruner.reporting.processors import Processors

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results/published/digits"
INTERVAL = "distance", "distance_low", "distance_high"

# ---------------------------------------------------------------------------------------------------- published results


def results() -> str:
    """Table 1 of the digits study, a row for each method and number of blocks."""
    with (PUBLISHED / "tables/table1.csv").open() as file:
        rows = {(row["method"], int(row["blocks"]), row["backbone"]): row for row in csv.DictReader(file)}
    lines = ["| method | blocks kept | DiT | SiT | speed-up |", "|---|---|---|---|---|"]
    for method in ("full fine-tuning", "LD-Pruner", "EntPruner"):
        for blocks in sorted({blocks for name, blocks, _ in rows if name == method}, reverse=True):
            both = [rows[method, blocks, backbone] for backbone in ("dit", "sit")]
            distances = ["{:.2f} [{:.2f}, {:.2f}]".format(*map(float, map(row.get, INTERVAL))) for row in both]
            faster = "–".join(sorted({f"{float(row['speedup']):.2f}" for row in both}))
            lines.append(f"| {method} | {blocks} of 12 | {' | '.join(distances)} | {faster}× |")
    return "\n".join(lines)


def processors() -> str:
    """How far two processors differ at the same seeds, a row for each kind of number."""
    found = Processors.read(ROOT / "params/expected/digits.processors.json")
    assert found is not None, "params/expected/digits.processors.json was measured"
    one, other = (" and ".join(machine.device) for machine in (found.published, found.again))
    lines = [f"Published: {one}. Again: {other}.\n", "| number | what differs |", "|---|---|"]
    lines += [f"| {column.replace('_', ' ')} | {each.words} |" for column, each in found.differences().items()]
    if others := found.other_blocks:
        arms = len(found.values["distance"]) + len(others)
        named = ", ".join(f"`{arm}`" for arm in others)
        lines += ["", f"{len(others)} of {arms} arms are not compared: the other processor removed another"]
        lines += [f"block there, because two blocks have nearly the same score. They are {named}."]
    return "\n".join(lines)


def gallery() -> str:
    """Every published figure below its caption."""
    figures = yaml.safe_load((ROOT / "params/digits.yaml").read_text())["figures"]
    return "\n\n".join(
        f"## {figure['caption']}\n\n![{figure['caption']}](../results/published/digits/figures/{name}.png)"
        for name, figure in figures.items()
    )


# --------------------------------------------------------------------------------------------------------------- params


def params() -> str:
    """A chapter for a study, and one for each section that its keys name."""
    whole = schema()
    sections = {"Study": whole, **whole["$defs"]}
    return "\n\n".join(
        "\n".join(chapter(name, section)) for name, section in sections.items() if "properties" in section
    )


def chapter(name: str, section: dict[str, Any]) -> Iterator[str]:
    yield f"(params-{name.lower()})="
    yield f"## {name}\n"
    yield one_line(section.get("description", "")) + "\n"
    yield "| key | what it may be | default | what it means |"
    yield "|---|---|---|---|"
    for key, node in section["properties"].items():
        said = default(node) if "default" in node else ("" if key in section.get("required", ()) else "none")
        cells = (f"`{key}`", allowed(node), said, one_line(node.get("description", "")))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def allowed(node: dict[str, Any]) -> str:
    """What values a key takes, in words, with links to sections."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return f"[{name}](#params-{name.lower()})"
    for either in ("anyOf", "oneOf"):
        if either in node:
            return " or ".join(allowed(one) for one in node[either])
    if "enum" in node:
        return ", ".join(f"`{value}`" for value in node["enum"])
    if "const" in node:
        return f"`{node['const']}`"
    if node.get("type") == "array":
        inner = node.get("items") or (node.get("prefixItems") or [{}])[0]
        return f"list of: {allowed(inner)}"
    if "patternProperties" in node:
        [inner] = node["patternProperties"].values()
        return f"names, each with: {allowed(inner)}"
    words = {
        "integer": "whole number",
        "string": "text",
        "boolean": "true or false",
        "object": "mapping",
        "null": "nothing",
    }
    bounds = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    kind = words.get(node.get("type", ""), node.get("type", "anything"))
    return ", ".join([kind, *(f"{sign} {node[bound]:g}" for bound, sign in bounds.items() if bound in node)])


def default(node: dict[str, Any]) -> str:
    """A default, unless it is a whole section, whose keys have defaults of their own."""
    value = node["default"]
    if isinstance(value, dict):
        return "see there"
    return "none" if value is None else f"`{json.dumps(value)}`"


def one_line(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


# ------------------------------------------------------------------------------------------------------------- commands


def commands() -> str:
    """The help of every command for people."""
    parser = command_line()
    chapters = [f"```text\n{command_line('').format_help()}```"]
    for name, command in subcommands(parser).items():
        helps = [command.format_help(), *(action.format_help() for action in subcommands(command).values())]
        chapters.append(f"## entpruner {name}\n\n" + "\n\n".join(f"```text\n{text}```" for text in helps))
    return "\n\n".join(chapters)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return next((dict(act.choices) for act in parser._actions if isinstance(act, argparse._SubParsersAction)), {})


def make() -> str:
    """The commands that ``make`` lists, from the comments behind its targets."""
    told = re.findall(r"^([a-z-]+):.*?##\s*(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return "\n".join(
        ["| command | what it does |", "|---|---|", *(f"| `make {name}` | {does} |" for name, does in told)]
    )


PARTS = {part.__name__: part for part in (results, processors, gallery, params, commands, make)}
"""A part by the name that stands in the comment of a page."""
