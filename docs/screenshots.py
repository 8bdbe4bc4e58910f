"""Build the page of a published study, and photograph it with Chromium for the documentation.

python docs/screenshots.py digits docs/_build/story.html

The page is built from the records under results/published/<study>. The pictures are docs/story.png, docs/story-dark.png
and docs/story-narrow.png.
"""

import subprocess
import sys
from pathlib import Path

from entpruner.layout import PUBLISHED, Layout
from entpruner.params.files import PARAMS, REFERENCE, STORY_TEMPLATE, read_study
from entpruner.reporting.records import Records
from entpruner.reporting.story.page import html, story_of
from entpruner.rules.report import Story
from entpruner.rules.rule import Job
from entpruner.study.resolved import ResolvedStudy

DOCS = Path(__file__).parent
PICTURES = {"story": (1400, 1500, 1), "story-dark": (1400, 1500, 0), "story-narrow": (500, 1400, 1)}
"""The name of a picture -> width and height of the window, and 1 for light or 0 for dark."""


def build(name: str, target: Path) -> None:
    """Write the page of a published study."""
    params = PARAMS / f"{name}.yaml"
    study = ResolvedStudy(read_study([params]), [params])
    settings = Story().settings(study, Job("story"))
    story = story_of(Records(Layout(name, PUBLISHED).root), settings, study.paths.root, REFERENCE)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(html(story, STORY_TEMPLATE))


def photograph(page: Path, picture: Path, width: int, height: int, light: int) -> None:
    """Take a picture of the top of a page."""
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}",
        f"--blink-settings=preferredColorScheme={light}", "--virtual-time-budget=8000", f"--screenshot={picture}",
    ]  # fmt: skip
    subprocess.run(["chromium", *options, page.resolve().as_uri()], check=True, capture_output=True)


if __name__ == "__main__":
    page = Path(sys.argv[2])
    build(sys.argv[1], page)
    for name, window in PICTURES.items():
        photograph(page, DOCS / f"{name}.png", *window)
