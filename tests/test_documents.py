"""YAML that nobody would write by hand is refused at once, in a line that says what is wrong with it."""

from itertools import pairwise
from pathlib import Path

import pytest
from refusals import refused

from entpruner.params.documents import DEPTH, SIZE, VALUES
from entpruner.params.files import read_study


def laughs(levels: int) -> str:
    """A mapping whose last key stands for 9 to the power of ``levels`` values."""
    names = "abcdefghij"[: levels + 1]
    pairs = pairwise(names)
    lists = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairs]
    return "\n".join(["a: &a x", *lists])


def merges(levels: int) -> str:
    """The same with merge keys, which YAML copies."""
    names = "abcdefghij"[: levels + 1]
    pairs = pairwise(names)
    maps = [f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}" for before, name in pairs]
    return "\n".join(["a: &a {k: 1}", *maps])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: !!int x", 1, "not valid YAML: 'x' is no int"),
        ("a: !!int", 1, "'' is no int"),
        ("a: !!set b", 1, "expected a mapping node, but found scalar"),
        ("a: !!map bc", 1, "expected a mapping node, but found scalar"),
        ("a: !!float x", 1, "'x' is no float"),
        ("a: !!bool x", 1, "'x' is no bool"),
        ("a: !!timestamp x", 1, "'x' is no timestamp"),
        ("a: 2026-13-45", 1, "'2026-13-45' is no timestamp"),
        (f"b: 1\na: {'7' * 4400}", 2, "is no int"),
        (r'a: "\ud800"', 1, r"'\ud800' is no str"),
        (r'"\ud800": 1', 1, r"'\ud800' is no str"),
        ("a: &a [*a]", 1, "the anchor 'a' contains itself"),
        ("a: &a {b: {<<: *a}}", 1, "the anchor 'a' contains itself"),
        ("a: " + "[" * 300 + "]" * 300, 1, f"got more than {DEPTH} levels"),
        (laughs(9), 6, f"got more than {VALUES} values"),
        (merges(9), 5, f"got more than {VALUES} values"),
        ("a: [" + "1, " * 20_000 + "]", 1, f"got more than {VALUES} values"),
        ("a: " + "x" * 10_000_000, None, f"got more than {SIZE} bytes"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_beyond_the_limits(tmp_path: Path, text: str, line: int | None, words: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(text)
    with refused(f"{file}:{line}: " if line else f"{file}: ", words):
        read_study([file])


@pytest.mark.parametrize("key", ["2026-01-01", "!!binary aGk=", "true", "1.5", "~"])
def test_a_key_that_is_no_text_is_an_unknown_key(tmp_path: Path, key: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(f"{key}: 1\n")
    with refused(f"{file}: ", "allowed: "):
        read_study([file])
