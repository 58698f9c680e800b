"""`report.html`: predicted | emulated | published, and what to make of it.

The page is one file: figures are embedded, there is no script and nothing is fetched. Every text
that comes from outside this module is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from experiments import published
from experiments.comparison import claim_text, compared, ms_text, p_text, probes_text
from experiments.looks import looks
from experiments.plots import CAPTIONS
from experiments.statistics import (
    Moments,
    difference_of_means,
    sigma_from_jitter,
    variance_ratio_test,
)
from experiments.summary import SD_TOLERANCE, JitterTest, Summary

BASES: Final = {
    "physics": "computed from geometry, the speed of light or a bit rate",
    "assumed": "stated by the paper or chosen; not fitted",
    "calibrated": "chosen so that the published statistics come out: agreement shows that the "
    "explanation is consistent, not that it is the true one",
    "phenomenological": "the mere shape of a measured distribution, without a mechanism",
}


def write_report(
    path: Path,
    summary: Summary,
    *,
    title: str,
    environment: Mapping[str, object],
    figures: Sequence[Path] = (),
    warnings: Sequence[str] = (),
    scenario_toml: str = "",
) -> None:
    """Write the self-contained report of one run.

    `environment` is what `environment.json` holds, its `noise_floor` included; `figures` are PNG
    files; `warnings` are put first; `scenario_toml` is the scenario as run.
    """
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            *_warnings(warnings),
            *_what_was_run(summary, environment),
            *_arms(summary),
            *map(_figure, figures),
            *_claims(summary),
            *_budgets(summary),
            *_keys(summary),
            *_captures(summary),
            *_goodput(summary),
            *_noise(summary, environment),
            *_environment(environment, scenario_toml),
        ]
    )
    path.write_text(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n",
        encoding="utf-8",
    )


# -- sections of the page --------------------------------------------------------------------------


def _warnings(warnings: Sequence[str]) -> Iterator[str]:
    for warning in warnings:
        yield f'<p class="warning">{escape(warning)}</p>'


def _what_was_run(summary: Summary, environment: Mapping[str, object]) -> Iterator[str]:
    yield "<h2>What was run</h2>"
    yield (
        "<p>Real ICMP packets through an emulated network with the scenario's delays; the gateways' "
        "keys come out of simulated quantum satellite passes. What is published is "
        f"{escape(published.CITATION)}.</p>"
    )
    wanted = ("scenario", "substrate", "clock", "seed")
    rows = [(name, environment[name]) for name in wanted if name in environment]
    yield _table((), [*rows, ("arms", ", ".join(summary.arms))])


def _arms(summary: Summary) -> Iterator[str]:
    yield "<h2>Predicted, emulated, published</h2>"
    head = (
        "arm",
        "probes",
        "",
        "predicted",
        "emulated",
        "95 % CI",
        *("published", "off by", "", "σ", "lag-1"),
    )
    rows: list[Sequence[object]] = []
    for name, look in looks(list(summary.arms)).items():
        arm = summary.arms[name]
        lag1 = "–" if arm.lag1 is None else f"{arm.lag1:+.2f}"
        intervals = (None, arm.mean_ci95_ms, None, arm.jitter_ci95_ms)  # in the order of FIGURES
        for i, (cells, interval) in enumerate(zip(compared(arm), intervals, strict=True)):
            first = i == 0
            rows.append(
                [
                    look.title if first else "",
                    probes_text(arm) if first else "",
                    *cells[:3],
                    "" if interval is None else f"{interval[0]:.2f} – {interval[1]:.2f}",
                    *cells[3:],
                    ms_text(arm.sigma_ms) if first else "",
                    lag1 if first else "",
                ]
            )
    yield _table(head, rows)
    yield (
        "<p>RTT in ms. Predicted: from the delay laws alone, ± standard deviation from run to run. "
        "Off by: emulated minus published in such standard deviations; within "
        f"{SD_TOLERANCE:g} it agrees. 95 % CI: of the emulated figure, a block bootstrap. "
        "J: mean of |Tᵢ − Tᵢ₋₁|, equation (5). σ: equation (4). "
        "Lag-1: autocorrelation of consecutive RTTs, which J and the extremes do not show.</p>"
    )


def _figure(png: Path) -> str:
    data = base64.b64encode(png.read_bytes()).decode("ascii")
    caption = escape(CAPTIONS.get(png.stem, png.stem))
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _claims(summary: Summary) -> Iterator[str]:
    arms = published.ARMS
    plain, encrypted = (
        Moments(arm.rtt.mean_ms, sigma_from_jitter(arm.rtt.jitter_ms), arm.n)
        for arm in (arms["plain"], arms["encrypted"])
    )
    ratio, p_value = variance_ratio_test(plain, encrypted)
    yield "<h2>The claim: encryption costs 5 ms</h2>"
    tests = [("published", difference_of_means(plain, encrypted))]
    tests += [("this run", summary.overhead)] if summary.overhead is not None else []
    tests += [("the tunnel alone", summary.tunnel_overhead)] if summary.tunnel_overhead else []
    yield _table((), [(name, claim_text(test)) for name, test in tests])
    yield (
        "<p>Published: from the paper's means and the spread its jitter implies. The tunnel alone: "
        "the plain arm's radio with the tunnel added.</p>"
    )
    yield "<h2>The claim: the tunnel halves jitter</h2>"
    lines = [("published", f"variances {ratio:.1f} : 1, F test {p_text(p_value)}")]
    if summary.jitter is not None:
        lines.append(("this run", _jitter_text(summary.jitter)))
    yield _table((), lines)
    yield (
        "<p>The two published sessions do differ. Where this run shows the same, it is because the "
        "two sessions were given different radio conditions; compare the arm that adds the tunnel "
        "to the plain arm's radio.</p>"
    )


def _jitter_text(test: JitterTest) -> str:
    levene = "" if test.levene_p is None else f", Levene {p_text(test.levene_p)}"
    return (
        f"jitter ratio {test.jitter_ratio:.2f} (95 % CI {test.ci95[0]:.2f} to {test.ci95[1]:.2f}); "
        f"variances {test.variance_ratio:.1f} : 1, F test {p_text(test.f_test_p)}{levene}"
    )


def _budgets(summary: Summary) -> Iterator[str]:
    if not any(arm.budget for arm in summary.arms.values()):
        return
    yield "<h2>What is physics and what is calibration</h2>"
    used = {term.basis for arm in summary.arms.values() for term in arm.budget}
    yield _table((), [(basis, text) for basis, text in BASES.items() if basis in used])
    for name, look in looks(list(summary.arms)).items():
        budget = summary.arms[name].budget
        if not budget:
            continue
        rows = [
            (t.hop, t.element, f"{t.mean_ms:.3f}", f"{t.sd_ms:.2f}", t.basis, t.source)
            for t in budget
        ]
        for basis in BASES:
            total = sum(term.mean_ms for term in budget if term.basis == basis)
            if basis in used:
                rows.append(("", "all", f"{total:.3f}", "", basis, ""))
        yield f"<details><summary>{escape(look.title)}</summary>"
        yield _table(("hop", "element", "mean (ms a round trip)", "sd", "basis", "source"), rows)
        yield "</details>"


def _keys(summary: Summary) -> Iterator[str]:
    keys = summary.keys
    if not keys.passes and not keys.sites:
        return
    yield "<h2>Keys</h2>"
    for name, figures in keys.passes.items():
        yield f"<h3>{escape(name)}</h3>"
        yield _table((), [(figure.replace("_", " "), value) for figure, value in figures.items()])
    yield (
        f"<p>{keys.relayed_bits} bits relayed as K1 ⊕ K2. The gateways used {keys.session_keys} "
        f"keys and changed keys {keys.rekeys} times while the tunnel was in use.</p>"
    )
    head = ("site", "received bits", "keys delivered", "bits delivered", "bits left")
    yield _table(
        head,
        [
            (name, s.received_bits, s.delivered_keys, s.delivered_bits, s.remaining_bits)
            for name, s in keys.sites.items()
        ],
    )


def _captures(summary: Summary) -> Iterator[str]:
    if not summary.captures:
        return
    yield "<h2>Captures</h2>"
    head = ("arm", "ESP", "ICV good", "ICV bad", "ICMP inside", "plaintext", "verdict")
    yield _table(
        head,
        [
            (
                name,
                v.esp_packets,
                v.icv_good,
                v.icv_bad,
                v.inner_icmp,
                v.plaintext_packets,
                "sealed" if v.sealed else "not sealed",
            )
            for name, v in summary.captures.items()
        ],
    )
    yield (
        "<p>Packets on the satellite hop, as tshark decodes them with the run's <code>esp_sa"
        "</code>. Plaintext: packets that show the UE's or DN's address without decryption.</p>"
    )


def _goodput(summary: Summary) -> Iterator[str]:
    rows = [
        (
            name,
            f"{g.protocol.upper()} {g.direction}",
            f"{g.goodput_mbps:.3f}",
            f"{g.duration_s:.1f}",
            "–" if g.sent is None else f"{g.lost} of {g.sent}",
        )
        for name, arm in summary.arms.items()
        for g in arm.goodput
    ]
    if rows:
        yield "<h2>Goodput</h2>"
        yield _table(("arm", "iperf", "Mbit/s", "s", "datagrams lost"), rows)


def _noise(summary: Summary, environment: Mapping[str, object]) -> Iterator[str]:
    floor = environment.get("noise_floor")
    lateness = [
        (name, f"{a.noise.p99_lateness_ns / 1e3:.1f}", f"{a.noise.worst_lateness_ns / 1e3:.1f}")
        for name, a in summary.arms.items()
        if a.noise is not None
    ]
    if not floor and not lateness:
        return
    yield "<h2>The run's own noise</h2>"
    if isinstance(floor, Mapping):
        yield "<p>A control arm over the same chain, with nothing in it that varies:</p>"
        yield _table((), _flat(floor))
    if lateness:
        yield _table(("arm", "probes late by, 99 % (µs)", "worst (µs)"), lateness)


def _environment(environment: Mapping[str, object], scenario_toml: str) -> Iterator[str]:
    yield "<h2>Environment</h2>"
    rest = {name: value for name, value in environment.items() if name != "noise_floor"}
    yield _table((), _flat(rest))
    if scenario_toml:
        yield f"<details><summary>scenario</summary><pre>{escape(scenario_toml)}</pre></details>"


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Name and value of every leaf of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} ")
        else:
            text = f"{value:.6g}" if isinstance(value, float) else value
            yield f"{prefix}{name}".replace("_", " "), text


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; numbers to the right, verdicts in colour."""
    lines = ["<table>"]
    if head:
        lines.append("<tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>")
    for row in rows:
        lines.append("<tr>" + "".join(map(_cell, row)) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _cell(value: object) -> str:
    text = "–" if value is None else f"{value}"
    verdicts = {"agrees": "good", "sealed": "good", "differs": "bad", "not sealed": "bad"}
    numeric = text[:1].isdigit() or text[:1] in {"+", "-", "–"}
    kind = verdicts.get(text) or ("number" if numeric and len(text) < 24 else "")
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"


STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em;
       color: #222; background: #fff }
h1 { font-size: 1.6em } h2 { font-size: 1.2em; margin-top: 2em } h3 { font-size: 1em }
table { border-collapse: collapse; margin: .6em 0; font-variant-numeric: tabular-nums }
th, td { padding: .15em .8em; border-bottom: 1px solid #ddd; text-align: left;
         vertical-align: top }
td.number { text-align: right; white-space: nowrap }
td.good { color: #00694d } td.bad { color: #b30000; font-weight: bold }
figure { margin: 1.5em 0 } img { max-width: 100% } figcaption { color: #555 }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto }
.warning { border-left: 4px solid #b30000; background: #fdecea; padding: .5em 1em }
"""
