"""Build one table from the files of its arms."""

from pathlib import Path

from entpruner.reporting.records import Records
from entpruner.reporting.tables import table_from
from entpruner.rules.report import TableSettings


def run(settings: TableSettings, *, results: Path, reference: Path, out: Path) -> None:
    table_from(Records(results), settings, results, reference).write(out)
