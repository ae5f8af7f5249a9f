"""A run as a page to look at (or as JSON): ``fabric up --report run.html``, ``fabric report RUN_DIR --to run.html``.

A package of nodes adds sections of its own: a callable ``section(run: RunView) -> list[Section]`` under a name in the
entry-point group ``fabric.report_sections``. What a section shows is data: tables, heat maps and lines.
"""

from fabric.report.sections import Cell, Heatmap, Item, Lines, Section, Series, Table
from fabric.report.view import RunView

__all__ = ["Cell", "Heatmap", "Item", "Lines", "RunView", "Section", "Series", "Table"]
