"""Write the tutorial as a notebook, docs/tutorial.ipynb, from docs/tutorial.md: python docs/notebook.py

Its commands become cells of Jupyter's ``%%bash``, and its params file one of ``%%writefile``. The first cell does what
the page does by ``cd`` and ``export``, because each cell has a shell of its own.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = Path(__file__).parent
PAGE, NOTEBOOK = DOCS / "tutorial.md", DOCS / "tutorial.ipynb"
BEGIN = """import os
from pathlib import Path

os.chdir("..")  # the top of the repository
os.environ["PATH"] = f"{Path('.venv/bin').resolve()}:{os.environ['PATH']}\""""


def cells(page: str) -> Iterator[tuple[str, str]]:
    """The kind of each cell, markdown or code, and its text."""
    yield "code", BEGIN
    file = Path()  # what the next params file is called
    for block in re.split(r"^((?:    .*\n|\n(?=    ))+|```yaml\n(?:(?!```).*\n)*```\n)", page, flags=re.MULTILINE):
        text = block.strip("\n")
        if text.startswith("```yaml"):
            yield "code", f"%%bash\nmkdir -p {file.parent}"
            yield "code", f"%%writefile {file}\n" + text.removeprefix("```yaml\n").removesuffix("\n```")
        elif text.startswith("    "):
            commands = re.sub("^    ", "", text, flags=re.MULTILINE)
            if not commands.startswith("export "):
                yield "code", f"%%bash\n{commands}"
        elif text:
            yield "markdown", text
            file = Path("".join(re.findall(r"file `(\S+\.yaml)`", text)))


def notebook(page: str) -> str:
    """The notebook of a page, in the format of Jupyter."""
    written = []
    for kind, text in cells(page):
        more = {"execution_count": None, "outputs": []} if kind == "code" else {}
        written.append({"cell_type": kind, "metadata": {}, "source": text.splitlines(keepends=True), **more})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": written, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text()))
