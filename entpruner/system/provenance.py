"""Which code made a result: a digest of the package's code that a command runs, and the git commit."""

import ast
import hashlib
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
WITHOUT_EFFECT = {
    "entpruner.rules": "a rule's decisions reach its command as settings and paths, which Snakemake compares",
    "entpruner.layout": "a file that has another name is missing under it, so Snakemake makes it again",
    "entpruner.errors": "an error leaves no result",
    "entpruner.system.recording": "it writes down how a result was made",
    "entpruner.system.provenance": "another way to make a digest makes another digest",
    "entpruner.system.progress": "it shows numbers and makes none",
    "entpruner.system.live": "it shows numbers elsewhere and makes none",
    "entpruner.system.stopping": "it decides when a command ends, which goes on to the same result",
}
"""Modules and packages that no number depends on, each with the reason."""

DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "vl_convert": "vl-convert-python", "yaml": "pyyaml"}
"""The distributions whose modules have other names."""

PUBLISHED = ("results", "params/expected")
"""Folders of files that ``make publish`` writes, and no measuring command reads."""


@cache
def code_digest(*modules: str) -> str:
    """Digest of what modules of this package do, of all that they import from it, and of their libraries' versions.

    Snakemake sees neither imported modules nor installed versions when it decides what to rerun; it is given this as a
    parameter. Imports inside functions count, and ``if`` conditions are not weighed. Comments, docstrings, line breaks,
    and the words of errors and logs do not count, nor what is ``WITHOUT_EFFECT``.
    """
    found: dict[str, Path] = {}
    libraries: set[str] = set()
    waiting = [*modules]
    while waiting:
        name = waiting.pop()
        path = file_of(name)
        if path is None or name in found or any(f"{name}.".startswith(f"{out}.") for out in WITHOUT_EFFECT):
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        if parent:
            waiting.append(parent)  # importing a module runs its packages' __init__
        for imported in imports(path.read_bytes(), name if path.name == "__init__.py" else parent):
            top = imported.partition(".")[0]
            if top == PACKAGE.name:
                waiting.append(imported)
            else:
                libraries.add(top)
    digest = hashlib.sha256()
    for name, path in sorted(found.items()):
        digest.update(f"{name} {hashlib.sha256(meaning(path.read_bytes())).hexdigest()}\n".encode())
    for library in sorted(libraries):
        digest.update(f"{library} {version_of(library)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def meaning(code: bytes) -> bytes:
    """The code without what no number depends on: comments, docstrings, calls of a logger, and the words of errors."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc.args, node.exc.keywords = [], []
        elif isinstance(node, ast.Assert):
            node.msg = None
        elif isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not is_silent(statement)]  # type: ignore[attr-defined]
    return ast.dump(tree).encode()


def is_silent(statement: ast.stmt) -> bool:
    """Whether a statement is a docstring, or a call of a logger that is named ``log``."""
    value = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        return isinstance(value.func.value, ast.Name) and value.func.value.id == "log"
    return isinstance(value, ast.Constant)


@cache
def imports(code: bytes, package: str) -> set[str]:
    """Modules that the imports in ``code`` may name, from within ``package``; ``from a import b`` is a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package) if node.level else node.module or ""
            names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
    return names


def file_of(module: str) -> Path | None:
    """The file of a module of this package; None for a name that is no module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    files = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in files if file.is_file()), None)


@cache
def version_of(module: str) -> str | None:
    """Version of the distribution that a top-level module belongs to; None for Python's own."""
    try:
        return version(DISTRIBUTIONS.get(module, module))
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """The commit that the package's repository stands at; None without git.

    It ends in ``-dirty`` if a file of the repository differs that is not in ``PUBLISHED``.
    """
    git = ["git", "-C", str(PACKAGE)]
    name = [*git, "rev-parse", "--short=12", "HEAD"]
    differs = [*git, "diff", "--name-only", "HEAD", "--", ":/", *(f":(top,exclude){folder}" for folder in PUBLISHED)]
    try:
        said, changed = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for command in (name, differs)
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{said}-dirty" if changed else said
