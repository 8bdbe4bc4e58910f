"""How Sphinx builds the documentation. The code fills in comments of the pages such as <!-- params -->."""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from from_code import PARTS  # noqa: E402

project = "EntPruner"
copyright = "The EntPruner reproduction contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "EntPruner"
autodoc_typehints = "description"
autodoc_member_order = "bysource"


def fill(_app: Any, _page: str, source: list[str]) -> None:
    """Put the parts that are made from the code in the places of their comments, and files beside the pages as files.

    MyST takes a link to a Markdown file for a page, unless it begins with ``path:``.
    """
    text = re.sub(r"<!-- (\w+) -->", lambda part: PARTS[part[1]](), source[0])
    source[0] = re.sub(r"\]\((?=(\.\./)+results/[^)]*\.md\))", "](path:", text)


def setup(app: Any) -> None:
    app.connect("source-read", fill)
