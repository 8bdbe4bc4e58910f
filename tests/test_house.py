"""The house: one set of versions, and a Makefile that sets up once and whole."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def locked() -> dict[str, list[str]]:
    """Name → the lines of its entry in the lock: the pin, then its hashes."""
    entries = re.split(r"\n(?=\S)", (ROOT / "requirements.lock").read_text())
    pins = [entry.splitlines() for entry in entries if entry and not entry.startswith("#")]
    return {str(canonicalize_name(pin[0].split("==")[0])): pin for pin in pins}


def test_the_lock_pins_everything_by_hash_and_names_no_server(locked: dict[str, list[str]]) -> None:
    assert len(locked) > 100
    for pin, *hashes in locked.values():
        assert re.match(r"[\w.-]+==[\w.]+( ; .+)? \\$", pin)
        assert hashes and all(re.fullmatch(r" +--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in hashes)
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_every_dependency_is_locked_at_a_version_it_allows(locked: dict[str, list[str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in chain(project["dependencies"], *project["optional-dependencies"].values()):
        if text.startswith("entpruner["):
            continue
        requirement = Requirement(text)
        pinned = Requirement(locked[canonicalize_name(requirement.name)][0].rstrip(" \\"))
        (version,) = (specifier.version for specifier in pinned.specifier)
        assert requirement.specifier.contains(version), f"{pinned} is locked, {requirement} is asked for"


def test_score_and_prune_load_what_the_package_alone_needs() -> None:
    """Not what the extras bring."""
    extras = "altair diffusers dvc matplotlib mlflow requests sklearn snakemake sqlalchemy torch_fidelity torchvision"
    program = f"""
import sys
sys.modules.update(dict.fromkeys({extras.split()}))  # None: an import of it fails
import entpruner.own_model
from entpruner.cli import command_line
command_line()"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr


def test_the_workflow_itself_loads_no_torch() -> None:
    """It would take seconds at each start of Snakemake."""
    glue = (ROOT / "workflow/common.smk").read_text()
    imported = re.findall(r"^from entpruner.*", glue, re.MULTILINE)
    assert len(imported) > 10
    program = "\n".join([*imported, "import sys", "assert not sys.modules.keys() & {'torch', 'numpy', 'mlflow'}"])
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_conda_takes_its_versions_from_the_lock_alone() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["--requirement requirements.lock"]}
    assert conda == ["python=3.11", "pip"]  # anything else from conda would be a second set of versions
    assert "nodefaults" in environment["channels"]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A folder with the Makefile and a python that only pretends to make environments, and counts."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for name in ("requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    tool = '#!/bin/sh\necho "$(basename $0) $*" >> log\ntest ! -e broken\n'
    create = "mkdir -p .venv/bin; rm -f .venv/leftover\n" + "".join(
        f"printf '%s' '{tool}' > .venv/bin/{name}; chmod +x .venv/bin/{name}\n" for name in ("pip", "entpruner")
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ntest "$1" = -c && exec {sys.executable} "$@"\necho "$*" >> log\n{create}')
    python.chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"]}  # this test may itself be run by make, which would show in the environment
    command = ["make", *([] if "UV=./uv" in arguments else ["UV="]), *arguments]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)


def done(folder: Path) -> list[str]:
    """First two words of what was run since the last call."""
    log = folder / "log"
    lines = log.read_text().splitlines()
    log.unlink()
    return [" ".join(line.split()[:2]) for line in lines]


def test_setting_up_is_done_once(fresh: Path) -> None:
    assert make(fresh, "results", "PYTHON=./python").returncode == 0
    assert done(fresh) == ["-m venv", "pip install", "pip install", "entpruner warm"]
    assert make(fresh, "results", "PYTHON=./python").returncode == 0
    assert done(fresh) == ["entpruner warm"]


def test_a_new_lock_updates_the_environment_and_a_broken_update_makes_it_anew(fresh: Path) -> None:
    assert make(fresh, "results", "PYTHON=./python").returncode == 0
    stamp = (fresh / ".venv/ready").stat().st_mtime
    os.utime(fresh / "requirements.lock", (stamp + 1, stamp + 1))
    done(fresh)
    (fresh / "broken").touch()
    assert make(fresh, "results", "PYTHON=./python").returncode != 0
    assert done(fresh) == ["pip install"]
    (fresh / "broken").unlink()
    assert make(fresh, "results", "PYTHON=./python").returncode == 0
    assert done(fresh) == ["-m venv", "pip install", "pip install", "entpruner warm"]


def test_uv_installs_where_it_is_there(fresh: Path) -> None:
    (fresh / "uv").write_text('#!/bin/sh\necho "uv $*" >> log\n')
    (fresh / "uv").chmod(0o755)
    assert make(fresh, "results", "PYTHON=./python", "UV=./uv").returncode == 0
    assert done(fresh) == ["-m venv", "uv pip", "uv pip", "entpruner warm"]


def test_a_wheel_and_a_source_archive_are_built(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    shutil.copytree(ROOT / "entpruner", tmp_path / "entpruner", ignore=shutil.ignore_patterns("__pycache__"))
    [build] = re.findall(r"^dist:.*\n\t\$\(BIN\)/python -c '(.*)'$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    [wheel], [_] = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    packed = set(ZipFile(wheel).namelist())
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "entpruner").rglob("*.py")}
    assert packed > sources | {"entpruner/py.typed"}


def test_the_image_has_what_set_up_needs() -> None:
    """In the layer before the code."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines[: lines.index("RUN make .venv/ready")] for word in line.split() if "COPY" in line}
    assert {"Makefile", "requirements.lock", "pyproject.toml", "README.md"} <= copied
    assert all((ROOT / word).exists() for word in copied - {"COPY", "--chown=entpruner:entpruner", "./"})


def test_both_images_begin_with_the_same_system() -> None:
    docker, apptainer = ((ROOT / name).read_text() for name in ("Dockerfile", "apptainer.def"))
    assert re.findall(r"^FROM (.*)$", docker, re.MULTILINE) == re.findall(r"^From: (.*)$", apptainer, re.MULTILINE)
    [one], [other] = (re.findall(r"apt-get install (.*?)(?: \\)?$", text, re.MULTILINE) for text in (docker, apptainer))
    assert one == other and "make .venv/ready" in apptainer


@pytest.mark.parametrize("file", [".pre-commit-config.yaml", ".readthedocs.yaml"])
def test_what_hosted_services_read_is_yaml(file: str) -> None:
    assert yaml.safe_load((ROOT / file).read_text())


def hosted(workflow: str, job: str) -> list[str]:
    """The commands of a job of a hosted service."""
    steps = yaml.safe_load((ROOT / f".github/workflows/{workflow}.yml").read_text())["jobs"][job]["steps"]
    return [step["run"] for step in steps if "run" in step]


def test_ci_runs_all_checks_and_asks_for_known_weaknesses_of_what_is_locked() -> None:
    assert ".ci/run" in hosted("ci", "all")
    [asks] = hosted("ci", "weaknesses")
    assert "pip-audit" in asks and "--requirement requirements.lock --require-hashes" in asks


def test_a_release_says_what_it_is_made_of() -> None:
    *_, build, says, publishes = hosted("release", "release")
    assert build == "make dist"
    assert "cyclonedx-py requirements requirements.lock" in says and '--output-file "dist/' in says
    assert publishes.startswith('gh release create "$GITHUB_REF_NAME" dist/*')


def test_an_old_python_is_refused_in_one_line(fresh: Path) -> None:
    (fresh / "python").write_text("#!/bin/sh\nexit 1\n")
    run = make(fresh, "results", "PYTHON=./python")
    assert run.returncode != 0
    assert run.stdout == "./python: Python 3.11 or newer is needed; name one, as in: make results PYTHON=python3.12\n"
    assert not (fresh / ".venv").exists()


def test_the_page_of_mlflow_answers_to_names_of_this_machine_alone() -> None:
    """MLflow's default lets in the addresses of private networks too."""
    said = make(ROOT, "--dry-run", "ui", "PORT=5001").stdout
    assert "--host 127.0.0.1 --port 5001 --allowed-hosts 'localhost:5001,127.0.0.1:5001'" in said


def test_make_lists_every_command() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = [line.split()[0] for line in make(ROOT).stdout.splitlines()]
    assert set(targets.split()) <= set(listed)


def test_nothing_that_is_published_says_where_somebody_works_or_lets_anybody_in() -> None:
    """Folders of users, private keys, and tokens of GitHub, Hugging Face and AWS."""
    private = re.compile(
        rb"/home/\w|/root/|/Users/\w|[A-Z]:\\\\?Users|/tmp/\w"
        rb"|BEGIN [A-Z ]*PRIVATE KEY|\bgh[pousr]_\w{20}|\bhf_\w{20}|\bAKIA[A-Z0-9]{16}"
    )
    folders = (ROOT / "results/published", ROOT / "params", ROOT / "docs", ROOT / "benchmarks/results")
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file() and "_build" not in file.parts]
    found = {str(file.relative_to(ROOT)): match[0] for file in files if (match := private.search(file.read_bytes()))}
    assert len(files) > 60 and found == {}


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("results/digits/arms.dvc", True),
        ("results/digits/.gitignore", True),
        ("results/published/digits/arms/arm/metrics.json", True),
        ("results/verify/digits-depth2/results/digits/arms/arm/metrics.json", False),
        ("results/digits/arms/arm/final/model.safetensors", False),
        ("results/digits/tables/table1.csv", False),
        ("results/mlflow.db", False),
        ("data/birds.zip.dvc", True),
        ("data/birds.zip", False),
        ("data/birds/train/wren/1.jpg", False),
        ("params/digits.yaml", True),
    ],
)
def test_what_git_sees(tmp_path: Path, path: str, seen: bool) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    for ignore in (".gitignore", "results/.gitignore", "data/.gitignore"):
        (tmp_path / ignore).parent.mkdir(exist_ok=True)
        (tmp_path / ignore).write_bytes((ROOT / ignore).read_bytes())
    asked = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=tmp_path, check=False)
    assert (asked.returncode == 1) == seen


def test_the_citation_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2511.21122"
