"""What a person sees of a QKD run and of its benchmark in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments.qkd import QkdOutcome


def print_qkd(outcome: QkdOutcome) -> None:
    """Print what a pass yielded, what optimising gained, and where the folder is."""
    found, console = outcome.report, Console()
    table = Table(title=found["title"], title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in _rows(found).items():
        table.add_row(name, value)
    console.print(table)
    if found["optimum"] is not None:
        console.print(_optimum_line(found), highlight=False, soft_wrap=True)
    if found["no_key"] is not None:
        console.print(f"[bold red]{found['no_key']}[/]", highlight=False, soft_wrap=True)
    console.print(f"run folder: {outcome.folder}", highlight=False, soft_wrap=True)


def _rows(found: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "duration": f"{found['pass']['duration_s']:.0f} s",
        "loss": f"{found['pass']['min_loss_dB']:.1f} to {found['pass']['max_loss_dB']:.1f} dB",
        "pulses": f"{found['pulses']:,}",
        "detections": f"{found['detections']:,}",
        "sifted bits": f"{found['sifted_bits']:,}",
        "of these of the signal": f"{found['sifted_signal_bits']:,}",
        "QBER": "none" if found["qber"] is None else f"{found['qber']:.2%}",
    }
    if found["no_key"] is None:
        used = found["authentication"]["key_bits"]
        rows |= {
            "disclosed in error correction": (
                f"{found['leakage_bits']:,} bits (f = {found['efficiency']:.3f})"
            ),
            "secret bits": f"{found['secret_bits']:,}",
            "net of authentication": f"{found['secret_bits'] - used:,}",
            "failure probability": f"{found['failure_probability']:.1e}",
        }
    rows["expected secret bits"] = f"{found['expected']['secret_bits']:,.0f}"
    return rows


def _optimum_line(found: Mapping[str, Any]) -> str:
    best = found["optimum"]
    before, after = best["baseline_secret_bits"], best["secret_bits"]
    gain = "from none" if best["gain"] is None else f"{best['gain']:.2f} times"
    intensities = " / ".join(f"{mu:.3f}" for mu in best["intensities"])
    shares = " / ".join(f"{100 * p:.1f}" for p in best["intensity_probabilities"])
    start_s, end_s = best["window_s"]
    return (
        f"optimised: {before:,.0f} to {after:,.0f} expected bits ({gain}) with "
        f"p_X = {best['basis_x_probability']:.3f}, intensities {intensities} "
        f"at {shares} %, from {start_s:.0f} s to {end_s:.0f} s of culmination"
    )


def print_bb84_bench(found: Mapping[str, Any]) -> None:
    """Print what `qntn bench bb84` measured."""
    console = Console()
    table = Table(
        title=f"a pass of {found['duration_s']:.0f} s over {found['channel']}, on one core",
        title_justify="left",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    for stage, seconds in found["stages_s"].items():
        table.add_row(stage, f"{seconds:.2f} s")
    table.add_section()
    table.add_row("from elements to secret bits", f"{found['total_s']:.2f} s")
    table.add_row("of these on the processor", f"{found['cpu_s']:.2f} s")
    table.add_row("pulses", f"{found['pulses']:,}")
    table.add_row("detections", f"{found['detections']:,}")
    table.add_row("secret bits", f"{found['secret_bits']:,}")
    table.add_row("equivalent pulses per second", f"{found['pulses_per_s']:.2e}")
    table.add_row("detections per second", f"{found['detections_per_s']:.2e}")
    table.add_row("peak memory", f"{found['peak_rss_MiB']:.0f} MiB")
    console.print(table)
    peer = found["peer"]
    if "missing" in peer:
        console.print(f"not measured: {peer['missing']}", highlight=False, soft_wrap=True)
        return
    console.print(
        f"{peer['name']} {peer['version']} at the same mean loss of {peer['loss_dB']:.1f} dB, without decoys: "
        f"{peer['pulses']:,} pulses in {peer['seconds']:.1f} s, {peer['pulses_per_s']:.2e} pulses per second, "
        f"{peer['times_slower']:,.0f} times slower; the pass would take it {peer['pass_days']:.0f} days",
        highlight=False,
        soft_wrap=True,
    )
