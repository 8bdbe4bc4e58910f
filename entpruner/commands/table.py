"""Build one table of the paper from the files that the arms' rules wrote."""

from pathlib import Path

from entpruner.reporting.records import Records
from entpruner.reporting.study_tables import TableSettings as Settings
from entpruner.reporting.study_tables import table_from


def run(settings: Settings, *, results: Path, reference: Path, out: Path) -> None:
    table_from(Records(results), settings, results=results, reference=reference).write(out)
