"""Write the page that tells the story of a study, and its headline as text."""

from pathlib import Path

from entpruner.layout import Layout
from entpruner.reporting.records import Records
from entpruner.reporting.tabular import write_text
from entpruner.rules.report import StorySettings


def run(settings: StorySettings, *, results: Path, reference: Path, template: Path, out: Path) -> None:
    from entpruner.reporting.story.page import html, story_of  # this loads libraries that no other command needs

    story = story_of(Records(results), settings, results, reference)
    write_text(Layout.at(results).story().files["headline"], story.headline + "\n")
    write_text(out, html(story, template))
