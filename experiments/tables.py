"""Tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def new_table(
    title: str, left: Iterable[str], right: Iterable[str], last: Iterable[str] = ()
) -> Table:
    """A table with columns to the left, numbers to the right, and more columns to the left."""
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right")
    for name in last:
        table.add_column(name)
    return table


def print_table(console: Console, table: Table) -> None:
    """Print a table; a file or a pipe has no width that anything must fit."""
    if not console.is_terminal:
        console = Console(width=max(console.width, needed_width(console, table)))
    console.print(table)


def needed_width(console: Console, table: Table) -> int:
    """Columns of the terminal that a table takes when nothing in it is wrapped."""
    return Measurement.get(console, console.options.update(max_width=1000), table).maximum
