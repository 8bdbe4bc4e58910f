"""A command's digest follows every module that it imports, however it imports it, and no other."""

import ast
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from entpruner.cli import COMMANDS, module_of
from entpruner.system import provenance
from entpruner.system.provenance import PACKAGE, code_digest, imports, version_of

FILES = {
    "__init__.py": "",
    "command.py": "from entpruner import direct\nfrom entpruner.inner.named import NAME\nimport entpruner.finder\n",
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
    "finder.py": 'def find(name):\n    return import_module(f"entpruner.computed.{name}")\n',
    "computed/__init__.py": "",
    "computed/one.py": "from entpruner.beside import two\n",
    "beside/__init__.py": "",
    "beside/two.py": "",
    "beside/stranger.py": "",
}
STRANGERS = ["unrelated.py", "inner/stranger.py", "beside/stranger.py"]
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
    file.write_text(file.read_text() + "# changed\n")
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


def test_the_scores_depend_on_the_network_but_not_on_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real package: one line of a module reruns what imports it."""
    copy = tmp_path / "entpruner"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "PACKAGE", copy)

    def digests() -> dict[str, str]:
        code_digest.cache_clear()
        return {name: code_digest(module_of(name)) for name in COMMANDS}

    def changed(module: str) -> set[str]:
        before = digests()
        (copy / module).write_text((copy / module).read_text() + "\n")
        return {name for name, digest in digests().items() if digest != before[name]}

    try:
        assert changed("models/transformer.py") >= {"pretrain", "adapt", "score", "prune", "recover", "sample", "cost"}
        assert changed("scores/criteria/learned.py") >= {"score", "prune", "audit_scores"}
        assert changed("schedule.py") == {"prune", "audit_schedules", "audit_report"}
        assert changed("reporting/tables.py") == {"table"}
        assert changed("commands/training.py") == {"pretrain", "adapt", "prune", "recover"}
        assert changed("commands/__init__.py") == set(COMMANDS) - {"audit_report"}
    finally:
        code_digest.cache_clear()


def test_every_command_has_a_digest_of_its_own() -> None:
    digests = {code_digest(module_of(name)) for name in COMMANDS}
    assert len(digests) == len(COMMANDS)


def test_the_version_of_every_library_is_known() -> None:
    files = {file: ".".join(file.relative_to(PACKAGE.parent).parent.parts) for file in PACKAGE.rglob("*.py")}
    names = set().union(*(imports(file.read_bytes(), package) for file, package in files.items()))
    libraries = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"entpruner"}
    assert libraries > {"torch", "sklearn"}
    assert [name for name in libraries if version_of(name) is None] == []


def test_no_module_is_imported_in_a_way_that_a_digest_misses() -> None:
    """No digest covers the command line and the warm process. Elsewhere a computed name begins with its package."""
    for file in PACKAGE.rglob("*.py"):
        if file.name not in ("cli.py", "warm.py"):
            code = file.read_bytes()
            names = [node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
            packages = {name for name in imports(code, "entpruner") if name.endswith(".*")}
            assert names.count("import_module") == len(packages) and "__import__" not in names, file
            assert all((PACKAGE.parent / name[:-2].replace(".", "/")).is_dir() for name in packages), file
