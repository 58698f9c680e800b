"""What all pictures share: figures made without pyplot, so that nothing is shared between them and no display is
needed; one style; Okabe and Ito's colours, told apart by every kind of colour vision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI: Final = 150
GREY: Final = "#555555"
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Final[Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "qntn",  # the same figure gives the same bytes
    "svg.fonttype": "path",
}
"""For `mpl.rc_context` around both drawing and `save`."""


def empty_figure(width_in: float, height_in: float) -> Figure:
    """A figure without axes, which finds its own layout."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, folder: Path, stem: str) -> list[Path]:
    """Write a figure as PNG (150 dpi) and SVG; returns both paths, in this order."""
    png, svg = folder / f"{stem}.png", folder / f"{stem}.svg"
    figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=DPI)
    return [png, svg]
