"""``entpruner verify``: build a study's tables once more, compare every cell with what is expected, say what held."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from entpruner.errors import UserError
from entpruner.params.files import DEFAULT_STUDY
from entpruner.reporting.expected import Expected
from entpruner.reporting.rebuild import DEPTHS, Plan, build, missing_networks, stage, tables_at
from entpruner.reporting.recorded import read_tables
from entpruner.reporting.verdicts import Verdict, exit_code, report, same_files, verdicts

PARAMS = DEFAULT_STUDY.parent


def verify(study: str, depth: int, *, expected: Path | None = None, tables: Path | None = None) -> int:
    """Print a verdict a cell, and return 0 (all reproduced), 1 (something is not) or 2 (something was not run).

    ``expected`` is the file of expectations, if not params/expected/<study>.yaml; ``tables`` a folder of finished
    tables to compare: without one they are built at the depth that is asked. Raises UserError where nothing is
    published or expected of the study.
    """
    wanted = Expected.read(expected or PARAMS / f"expected/{study}.yaml", study)
    found = list(verdicts(wanted, read_tables(tables))) if tables is not None else built(wanted, depth)
    if found:
        print(report(study, found))
    return exit_code(found)


def built(expected: Expected, depth: int) -> list[Verdict]:
    """The verdicts on tables that are built now; none if what they are built from is not here, which is said."""
    study, params = expected.study, PARAMS / f"{expected.study}.yaml"
    published = Path("results/published", study)
    if not (published / "machine.json").exists():
        raise UserError(f"{published}: nothing published to verify; run: make publish STUDY={study}")
    names = tables_at(depth, study, params)
    print(f"{study}, depth {depth}: {DEPTHS[depth].what}\n{Plan.of(depth, names, published)}", flush=True)
    if depth == 2 and (missing := missing_networks(study)):
        print(
            f"not run: {len(missing)} trained networks are not in results/{study}/arms, as that of {missing[0]}. If "
            f"this commit has a saved run (results/{study}/*.dvc), this brings them: make restore STUDY={study}. "
            f"Otherwise train them (make results STUDY={study}), or verify everything (make verify DEPTH=3)."
        )
        return []
    with working_folder(study, depth, names) as folder:
        stage(depth, study, folder)
        if not build(depth, study, params, names, folder):
            print("Some of it failed, see above; what it left is compared:")
        tables = folder / "results" / study / "tables"
        files = list(same_files(published / "tables", tables)) if depth == 1 else []
        return [*verdicts(expected, read_tables(tables)), *files]


@contextmanager
def working_folder(study: str, depth: int, tables: list[str]) -> Iterator[Path]:
    """A passing folder for depth 1; for the others one that stays: gone on with if unfinished, else begun anew."""
    if depth == 1:
        with TemporaryDirectory(prefix="entpruner-") as passing:
            yield Path(passing)
        return
    folder = Path("results/verify", f"{study}-depth{depth}")
    done = [(folder / "results" / study / "tables" / f"{table}.md").exists() for table in tables]
    if all(done):
        shutil.rmtree(folder, ignore_errors=True)
    print(f"in {folder}, which can be deleted afterwards", flush=True)
    yield folder
