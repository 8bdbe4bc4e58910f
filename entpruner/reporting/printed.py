"""A table as people read it: a few columns, in groups of rows, as Markdown, HTML and LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from string import Template

MOST_COLUMNS = 7
"""The number of columns that fit on a page 1,000 pixels wide."""
HTML = Template("""\
<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$caption</title>
<style>
:root {color-scheme: light dark} body {font: 13.5px/1.5 system-ui, sans-serif; margin: 1.2rem; max-width: 62rem}
div {overflow-x: auto} table {border-collapse: collapse; font-variant-numeric: tabular-nums}
th, td {padding: .35em .5em; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884}
th:first-child, td:first-child {text-align: left} tbody th {padding-top: 1.2em}
ul {color: GrayText; padding-left: 1.2em}
</style>
<h1 style="font-size: 1.2rem">$caption</h1>
<div><table>
$rows
</table></div>
<ul>
$notes
</ul>
</html>
""")
LATEX = Template(r"""% \usepackage{booktabs}
\begin{table*}
\centering
\small
\caption{$caption}
\label{tab:$label}
\begin{tabular}{$alignment}
\toprule
$head
\midrule
$body
\bottomrule
\end{tabular}

{\raggedright\scriptsize
$below
\par}
\end{table*}
""")
LATEX_ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "×": r"$\times$",
        "±": r"$\pm$",
        "−": r"$-$",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
    }
)


def latex_escape(text: str) -> str:
    return text.translate(LATEX_ESCAPES)


@dataclass(frozen=True)
class Line:
    """A row as text, from left to right."""

    cells: tuple[str, ...]
    best: frozenset[int] = frozenset()
    """The places of the cells that are the best of their group."""


@dataclass(frozen=True)
class Group:
    """Rows below a heading of their own."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Printed:
    """A table that is ready to be printed."""

    caption: str
    headings: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...]
    """The texts below the table."""

    def markdown(self) -> str:
        """The table in GitHub's Markdown. Bars within cells are escaped."""
        lines: list[Sequence[str]] = [self.headings, ["---", *["--:"] * (len(self.headings) - 1)]]
        for group in self.groups:
            lines.append([f"**{group.title}**", *[""] * (len(self.headings) - 1)])
            lines += [[f"**{c}**" if i in line.best else c for i, c in enumerate(line.cells)] for line in group.lines]
        rows = "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)
        notes = "\n".join(f"- {note}" for note in self.notes)
        return f"**{self.caption}**\n\n{rows}\n\n{notes}\n"

    def rows_of_html(self) -> str:
        """The head and the bodies of an HTML table. Each group is a body."""
        head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in self.headings)
        bodies = []
        for group in self.groups:
            rows = [f'<th scope="rowgroup" colspan="{len(self.headings)}">{escape(group.title)}</th>']
            for line in group.lines:
                texts = [escape(text) for text in line.cells]
                texts = [f"<strong>{text}</strong>" if i in line.best else text for i, text in enumerate(texts)]
                rows.append("".join(f"<td>{text}</td>" for text in texts))
            bodies.append("<tbody>\n" + "\n".join(f"<tr>{row}</tr>" for row in rows) + "\n</tbody>")
        return "\n".join([f"<thead>\n<tr>{head}</tr>\n</thead>", *bodies])

    def html(self) -> str:
        """The table as a complete HTML page, for Snakemake's report."""
        return HTML.substitute(
            caption=escape(self.caption),
            rows=self.rows_of_html(),
            notes="\n".join(f"<li>{escape(note)}</li>" for note in self.notes),
        )

    def latex(self, label: str) -> str:
        """The table as a ``table*`` for the package booktabs."""
        body = []
        for group in self.groups:
            body.append(rf"\multicolumn{{{len(self.headings)}}}{{l}}{{\textit{{{latex_escape(group.title)}}}}} \\")
            for line in group.lines:
                texts = [latex_escape(text) for text in line.cells]
                texts = [rf"\textbf{{{text}}}" if i in line.best else text for i, text in enumerate(texts)]
                body.append(" & ".join(texts) + r" \\")
        return LATEX.substitute(
            caption=latex_escape(self.caption),
            label=label.replace("_", "-"),
            alignment="l" + "r" * (len(self.headings) - 1),
            head=" & ".join(map(latex_escape, self.headings)) + r" \\",
            body="\n".join(body),
            below="\n".join(rf"\par {latex_escape(note)}" for note in self.notes),
        )
