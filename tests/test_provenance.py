"""A command's digest follows every module that it imports, however it imports it, and no other."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from entpruner.params.files import read_study
from entpruner.rules import RULES
from entpruner.rules.rule import Job
from entpruner.study.resolved import ResolvedStudy
from entpruner.system import provenance
from entpruner.system.provenance import PACKAGE, WITHOUT_EFFECT, code_digest, commit, imports, version_of

FILES = {
    "__init__.py": "",
    "command.py": "from entpruner import direct\nfrom entpruner.inner.named import NAME\n",
    "direct.py": "import entpruner.plain\n",
    "plain.py": "if False:\n    from entpruner import conditional\n",
    "conditional.py": "",
    "unrelated.py": "from entpruner import command\n",
    "inner/__init__.py": "",
    "inner/named.py": "from .sibling import something\nNAME = 1\n\ndef late():\n    from .. import inside_function\n",
    "inner/sibling.py": "from . import cousin\nsomething = 1\n",
    "inner/cousin.py": "from entpruner.inner import named  # in a circle\n",
    "inner/stranger.py": "",
    "inside_function.py": "",
}
STRANGERS = ["unrelated.py", "inner/stranger.py"]
IMPORTED = sorted(FILES.keys() - set(STRANGERS))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small package in place of ours; digests are not remembered."""
    package = tmp_path / "entpruner"
    for name, text in FILES.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(provenance, "PACKAGE", package)
    code_digest.cache_clear()
    yield package
    code_digest.cache_clear()


def changes_digest(file: Path) -> bool:
    before = code_digest("entpruner.command")
    file.write_text(file.read_text() + "\nchanged = True\n")
    code_digest.cache_clear()
    return code_digest("entpruner.command") != before


@pytest.mark.parametrize("name", IMPORTED)
def test_a_change_of_an_imported_module_changes_the_digest(package: Path, name: str) -> None:
    assert changes_digest(package / name)


@pytest.mark.parametrize("name", STRANGERS)
def test_a_change_of_another_module_does_not(package: Path, name: str) -> None:
    assert not changes_digest(package / name)


def test_a_digest_depends_neither_on_where_the_package_lies_nor_on_files_beside_it(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = code_digest("entpruner.command")
    shutil.copytree(package, tmp_path / "elsewhere/entpruner")
    (tmp_path / "elsewhere/entpruner/more.py").touch()
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "elsewhere/entpruner")
    code_digest.cache_clear()
    assert code_digest("entpruner.command") == here


def test_another_version_of_a_library_in_use_changes_the_digest(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "inner/cousin.py").write_text("import numpy.linalg\n")
    versions = {"numpy": "1.0", "torch": "1.0"}
    monkeypatch.setattr(provenance, "version_of", versions.get)

    def digest() -> str:
        code_digest.cache_clear()
        return code_digest("entpruner.command")

    before = digest()
    versions["torch"] = "2.0"  # not imported
    assert digest() == before
    versions["numpy"] = "2.0"
    assert digest() != before


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("x = 1  # a comment", "x = 1", True),
        ('"""Docstring."""\nx = 1', "x = 1", True),
        ("x = (\n    1\n)", "x = 1", True),
        ('def f():\n    """One."""\n    return 1', 'def f():\n    """Other."""\n    return 1', True),
        ('raise UserError("one")', 'raise UserError(f"another {x}")', True),
        ('assert x, "one"', 'assert x, "another"', True),
        ('log.info("one")', 'log.warning("another %d", x)', True),
        ("x = 1", "x = 2", False),
        ('raise UserError("one")', 'raise Stopped("one")', False),
        ("assert x", "assert y", False),
        ("x = 'one'", "x = 'another'", False),
    ],
)
def test_only_what_changes_numbers_changes_the_digest(package: Path, before: str, after: str, same: bool) -> None:
    def digest(text: str) -> str:
        (package / "plain.py").write_text(text + "\n")
        code_digest.cache_clear()
        return code_digest("entpruner.command")

    assert (digest(before) == digest(after)) is same


def test_what_has_no_effect_on_numbers_imports_nothing_that_computes() -> None:
    """So nothing that a number depends on can hide behind a module that the digest leaves out."""
    for name in WITHOUT_EFFECT:
        path = PACKAGE.parent.joinpath(*name.split("."))
        for file in path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            rooms = {
                found.split(".")[1] for found in imports(file.read_bytes(), name) if found.startswith("entpruner.")
            }
            assert not rooms & {"commands", "data", "models", "process", "proxies", "scores", "training", "evaluation"}


def test_the_scores_depend_on_the_network_but_not_on_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package: one line of a module reruns what imports it."""
    copy = tmp_path / "entpruner"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)

    def digests() -> dict[str, str]:
        code_digest.cache_clear()
        return {name: code_digest(rule.module) for name, rule in RULES.items()}

    def changed(module: str) -> set[str]:
        before = digests()
        (copy / module).write_text((copy / module).read_text() + "\nchanged = True\n")
        return {name for name, digest in digests().items() if digest != before[name]}

    try:
        assert changed("models/transformer.py") >= {"pretrain", "adapt", "score", "prune", "recover", "sample", "cost"}
        assert changed("schedule.py") == {"prune", "audit_schedules", "audit_stages", "audit_report"}
        assert changed("reporting/tables.py") == {"table", "story"}
        assert changed("commands/training.py") == {"pretrain", "adapt", "prune", "recover"}
        assert changed("commands/__init__.py") >= set(RULES) - {"audit_report", "effects"}
    finally:
        code_digest.cache_clear()


def test_every_command_has_a_digest_of_its_own() -> None:
    digests = {code_digest(rule.module) for rule in RULES.values()}
    assert len(digests) == len(RULES)


def test_the_version_of_every_library_is_known() -> None:
    files = {file: ".".join(file.relative_to(PACKAGE.parent).parent.parts) for file in PACKAGE.rglob("*.py")}
    names = set().union(*(imports(file.read_bytes(), package) for file, package in files.items()))
    libraries = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"entpruner"}
    assert libraries > {"torch", "sklearn"}
    assert [name for name in libraries if version_of(name) is None] == []


COMPUTED = ("cli/__init__.py", "cli/rule.py", "system/warm.py", "scores/__init__.py", "commands/training.py")


def test_no_module_is_imported_in_a_way_that_a_digest_misses() -> None:
    """Only the command line and the warm process, which no digest covers, and criteria and readings, whose rules name
    them."""
    for file in PACKAGE.rglob("*.py"):
        names = {node.id for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.Name)}
        computes = bool(names & {"import_module", "__import__"})
        assert computes == (file.relative_to(PACKAGE).as_posix() in COMPUTED), file


def test_the_digest_of_a_score_follows_its_own_criterion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "entpruner"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)
    study = ResolvedStudy(read_study([PACKAGE.parent / "params/smoke.yaml"]))
    jobs = {name: Job("score", backbone="sit", data="downstream", scores=name) for name in ("ced", "sensitivity")}

    def digests() -> dict[str, str]:
        code_digest.cache_clear()
        return {name: RULES["score"].code(study, job) for name, job in jobs.items()}

    try:
        before = digests()
        (copy / "scores/criteria/new.py").write_text("COST = 0\n")
        assert digests() == before
        with (copy / "scores/criteria/ced.py").open("a") as file:
            file.write("\nchanged = True\n")
        after = digests()
        assert after["sensitivity"] == before["sensitivity"] and after["ced"] != before["ced"]
    finally:
        code_digest.cache_clear()


def test_publishing_one_study_does_not_change_the_commit_that_the_next_one_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["entpruner/code.py", "results/published/text/metrics.json", "params/expected/text.yaml"]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("before")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "entpruner")
    clean = commit.__wrapped__()
    assert clean is not None and len(clean) == 12
    for name in files[1:]:
        (tmp_path / name).write_text("published")
    assert commit.__wrapped__() == clean
    (tmp_path / files[0]).write_text("changed")
    assert commit.__wrapped__() == f"{clean}-dirty"
