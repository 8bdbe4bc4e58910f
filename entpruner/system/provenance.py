"""Which code made a result: a digest of the package files that a command imports, and the git commit."""

import ast
import hashlib
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


@cache
def code_digest(module: str) -> str:
    """Digest of a module of this package, of all that it imports from the package, and of its libraries' versions.

    Snakemake sees neither imported modules nor installed versions when it decides what to rerun; it is given this as a
    parameter. Imports inside functions count, and ``if`` conditions are not weighed. Where a module's name is computed,
    all modules of its package count.
    """
    found: dict[str, Path] = {}
    libraries: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = file_of(name.removesuffix(".*"))
        if path is None or name in found:
            continue
        if name.endswith(".*"):
            waiting += [f"{name[:-1]}{file.stem}" for file in path.parent.glob("[a-z]*.py")]
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
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for library in sorted(libraries):
        digest.update(f"{library} {version_of(library)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def imports(code: bytes, package: str) -> set[str]:
    """Modules that the imports in ``code`` may name, from within ``package``; ``from a import b`` is a and a.b.

    All modules of a package are a.*, which ``from a import *`` and ``import_module(f"a.{name}")`` name.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom():
                module = node.module or ""
                source = resolve_name("." * node.level + module, package) if node.level else module
                names |= {source, *(f"{source}.{alias.name}" for alias in node.names)}
            case ast.Call(func=ast.Name("import_module"), args=[ast.JoinedStr([ast.Constant(str(start)), *_])]):
                names.add(f"{start}*")
    return names


def file_of(module: str) -> Path | None:
    """The file of a module of this package; None for a name that is no module."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    files = [path.with_suffix(".py"), path / "__init__.py"]
    return next((file for file in files if file.is_file()), None)


def version_of(module: str) -> str | None:
    """Version of the distribution that a top-level module belongs to; None for Python's own."""
    try:
        return version({"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}.get(module, module))
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """The commit that the package's repository stands at, ``-dirty`` if files differ; None without git."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
