"""RTTs compared: predicted | emulated | published, as the table in the terminal; its rows and words serve the report
(`experiments.report`) too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments import published
from experiments.looks import looks
from experiments.summary import FIGURES, SD_TOLERANCE, Arm, Overhead, Summary

FIGURE_NAMES: Final = {"min_ms": "min", "mean_ms": "mean", "max_ms": "max", "jitter_ms": "J"}


def terminal_table(summary: Summary) -> Table:
    """One row per arm and figure: predicted ± run-to-run sd, emulated, published, verdict.

    Fits 80 columns.
    """
    table = Table(
        title="RTT in ms",
        caption=_terminal_caption(summary),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("arm", ""):
        table.add_column(heading, no_wrap=True)
    for heading in ("predicted", "emulated", "published", "off by"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    colours = {"agrees": "[green]agrees[/]", "differs": "[bold red]differs[/]"}
    for name, look in looks(list(summary.arms)).items():
        arm = summary.arms[name]
        head = (look.name, look.detail, f"{probes_text(arm)} probes", "")
        for label, cells in zip(head, compared(arm), strict=True):
            table.add_row(label, *cells[:-1], colours.get(cells[-1], ""))
        table.add_section()
    return table


def _terminal_caption(summary: Summary) -> str:
    lines = []
    if any(arm.published and arm.n == published.PROBES for arm in summary.arms.values()):
        lines = [
            f"agrees: within {SD_TOLERANCE:g} run-to-run sd of the published value, "
            f"for {published.PROBES} probes"
        ]
    if summary.overhead is not None:
        lines.append(f"encrypted - plain {claim_text(summary.overhead)}")
    if summary.tunnel_overhead is not None:
        lines.append(f"the tunnel alone {claim_text(summary.tunnel_overhead)}")
    for arm, verdict in summary.captures.items():
        fate = "sealed" if verdict.sealed else "NOT SEALED"
        lines.append(
            f"{arm}: {fate}; {verdict.esp_packets} ESP packets, {verdict.icv_good} verify, "
            f"{verdict.plaintext_packets} in plaintext"
        )
    return "\n".join(lines)


def compared(arm: Arm) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Per figure: name, predicted, emulated, published, distance in sd, verdict."""
    distances = arm.deviations("published")
    for figure in FIGURES:
        predicted = "–"
        if arm.predicted is not None:
            sd = getattr(arm.predicted.sd, figure)
            predicted = f"{getattr(arm.predicted, figure):.2f} ± {sd:.2f}"
        distance = distances[figure]
        yield (
            FIGURE_NAMES[figure],
            predicted,
            ms_text(getattr(arm, figure)),
            ms_text(getattr(arm.published, figure, None)),
            "–" if distance is None else f"{round(distance, 1) + 0.0:+} sd",
            _verdict(arm, distance),
        )


def _verdict(arm: Arm, distance: float | None) -> str:
    """Whether an emulated figure agrees with the published one; extremes compare only for as many probes."""
    if distance is None or arm.n != published.PROBES:
        return ""
    return "agrees" if abs(distance) <= SD_TOLERANCE else "differs"


def ms_text(value: float | None) -> str:
    """Milliseconds, or a dash for none."""
    return "–" if value is None else f"{value:.2f}"


def p_text(p_value: float) -> str:
    """A p value, as exact as it is worth."""
    return f"p = {p_value:.2g}" if p_value >= 1e-12 else "p < 1e-12"


def probes_text(arm: Arm) -> str:
    """How many of an arm's probes came back."""
    return f"{arm.n - arm.lost} of {arm.n}" if arm.lost else f"{arm.n}"


def claim_text(test: Overhead) -> str:
    """A test of a difference of means in one sentence."""
    low, high = test.ci95_ms
    text = f"{test.mean_ms:+.2f} ms (95 % CI {low:+.2f} to {high:+.2f}, {p_text(test.p_value)})"
    if not low <= 0 <= high:
        return f"{text}: not zero"
    if test.n_for_80_percent_power is None:
        return f"{text}: zero"
    return f"{text}: not told from zero; that takes {test.n_for_80_percent_power} probes an arm"
