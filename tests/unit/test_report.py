"""The summary file, the report page and the terminal table."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from experiments import published
from experiments.comparison import claim_text, terminal_table
from experiments.report import write_report
from experiments.statistics import difference_of_means, jitter_test, moments, overhead
from experiments.summary import (
    Arm,
    CaptureVerdict,
    DelayTerm,
    Goodput,
    Keys,
    Prediction,
    ProbeNoise,
    RttFigures,
    SiteLedger,
    Summary,
    read_summary,
    write_summary,
)
from topo.errors import InputError

SD = RttFigures(min_ms=3.4, mean_ms=3.4, max_ms=21.6, jitter_ms=3.4)
PREDICTED = Prediction(min_ms=600.2, mean_ms=659.2, max_ms=764.1, jitter_ms=38.5, sd=SD)
PLAIN = [600.0, 640.0, 690.0, 760.0]
ENCRYPTED = [620.0, 650.0, 680.0, 700.0]
SEALED = CaptureVerdict(esp_packets=8, icv_good=8, icv_bad=0, inner_icmp=8, plaintext_packets=0)


def arm(**changes: Any) -> Arm:
    values: dict[str, Any] = {
        "n": 100,
        "lost": 0,
        "min_ms": 601.0,
        "mean_ms": 660.5,
        "max_ms": 764.0,
        "sigma_ms": 34.0,
        "jitter_ms": 37.0,
        "lag1": 0.02,
        "published": published.ARMS["plain"].rtt,
        "predicted": PREDICTED,
        "budget": (
            DelayTerm(
                hop="VSAT-HTS", element="propagation", mean_ms=245.92, basis="physics", source="(6)"
            ),
            DelayTerm(
                hop="UE-gNB", element="request", mean_ms=51, basis="calibrated", source="figure 12b"
            ),
        ),
        "noise": ProbeNoise(worst_lateness_ns=234_500, p99_lateness_ns=12_300),
        "goodput": (Goodput(protocol="tcp", goodput_mbps=8.912, duration_s=10.1),),
    }
    return Arm(**(values | changes))


def summary(**changes: Any) -> Summary:
    values: dict[str, Any] = {
        "arms": {"plain": arm(), "encrypted": arm(published=None, lost=3)},
        "overhead": overhead(PLAIN, ENCRYPTED, seed=0),
        "tunnel_overhead": overhead(PLAIN, [rtt + 0.4 for rtt in PLAIN], seed=0),
        "jitter": jitter_test(PLAIN, ENCRYPTED, seed=0),
        "keys": Keys(
            passes={"K1 (Beijing)": {"qber": 0.0123, "secret_bits": 98304}},
            relayed_bits=94208,
            sites={
                "KMS-U": SiteLedger(
                    received_bits=94208, delivered_keys=3, delivered_bits=768, remaining_bits=93440
                )
            },
            session_keys=3,
            rekeys=1,
        ),
        "captures": {"encrypted": SEALED},
    }
    return Summary(**(values | changes))


class Page(HTMLParser):
    """Tags opened and closed, attributes, text."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [v or "" for k, v in attrs if k in {"src", "href", "srcset", "data"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in {"td", "th", "p", "pre", "h1", "h3"}:
            self.cells.append(data)


def page(tmp_path: Path, found: Summary, **options: Any) -> Page:
    path = tmp_path / "report.html"
    write_report(path, found, **({"title": "a run", "environment": {}} | options))
    return Page(path.read_text(encoding="utf-8"))


class TestSummaryFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        write_summary(tmp_path / "summary.json", summary())
        assert read_summary(tmp_path / "summary.json") == summary()

    def test_json_has_the_agreed_keys(self, tmp_path: Path) -> None:
        write_summary(tmp_path / "summary.json", summary())
        found = json.loads((tmp_path / "summary.json").read_text())
        assert {"arms", "overhead", "keys", "captures"} <= found.keys()
        statistics = "n lost min_ms mean_ms max_ms sigma_ms jitter_ms lag1 published predicted"
        assert set(statistics.split()) <= found["arms"]["plain"].keys()
        assert {"mean_ms", "ci95_ms", "p_value"} <= found["overhead"].keys()
        assert found["arms"]["plain"]["predicted"]["sd"]["jitter_ms"] == 3.4
        verdict = "esp_packets icv_good icv_bad plaintext_packets"
        assert set(verdict.split()) <= found["captures"]["encrypted"].keys()

    def test_errors_name_file_and_key(self, tmp_path: Path) -> None:
        path = tmp_path / "summary.json"
        with pytest.raises(InputError, match=r"summary\.json: No such file"):
            read_summary(path)
        found = json.loads(summary().model_dump_json())
        found["arms"]["plain"]["median_ms"] = 1.0
        path.write_text(json.dumps(found))
        with pytest.raises(InputError, match=r"summary\.json: arms\.plain\.median_ms: Extra"):
            read_summary(path)
        path.write_text("{")
        with pytest.raises(InputError, match="Invalid JSON"):
            read_summary(path)

    def test_not_a_number_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="finite"):
            arm(mean_ms=float("nan"))


class TestVerdicts:
    def test_distance_is_in_run_to_run_deviations(self) -> None:
        distances = arm(jitter_ms=38 + 3.4 * 2).deviations("published")
        assert distances["jitter_ms"] == pytest.approx(2.0)
        assert arm().deviations("predicted")["mean_ms"] == pytest.approx((660.5 - 659.2) / 3.4)

    @pytest.mark.parametrize(
        ("changes", "agrees"),
        [
            ({}, True),
            ({"jitter_ms": 38 + 3.4 * 2.9}, True),
            ({"jitter_ms": 38 + 3.4 * 3.1}, False),
            ({"max_ms": 765 - 21.6 * 3.1}, False),
            ({"published": None}, None),
            ({"predicted": None}, None),
            (dict.fromkeys(("min_ms", "mean_ms", "max_ms", "jitter_ms")), None),
        ],
    )
    def test_three_deviations_are_the_limit(
        self, changes: dict[str, Any], agrees: bool | None
    ) -> None:
        assert arm(**changes).agrees() is agrees

    def test_a_deterministic_arm_has_no_deviation_to_measure_with(self) -> None:
        still = Prediction(
            min_ms=1, mean_ms=1, max_ms=1, jitter_ms=0, sd=SD.model_copy(update={"jitter_ms": 0})
        )
        assert arm(predicted=still).deviations("published")["jitter_ms"] is None

    @pytest.mark.parametrize(
        ("change", "sealed"),
        [
            ({}, True),
            ({"icv_good": 7}, False),
            ({"icv_bad": 1}, False),
            ({"plaintext_packets": 1}, False),
            ({"esp_packets": 0, "icv_good": 0}, False),
        ],
    )
    def test_sealed_means_all_verified_and_nothing_in_plaintext(
        self, change: dict[str, int], sealed: bool
    ) -> None:
        assert SEALED.model_copy(update=change).sealed is sealed

    def test_claims_in_words(self) -> None:
        noise = difference_of_means(moments([600.0, 700.0]), moments([605.0, 705.0]))
        assert "not told from zero; that takes" in claim_text(noise)
        clear = difference_of_means(moments([600.0, 600.1]), moments([605.0, 605.1]))
        assert claim_text(clear).startswith("+5.00 ms (95 % CI")
        assert claim_text(clear).endswith("not zero")
        assert claim_text(overhead([1.0, 1.0], [1.0, 1.0], seed=0)).endswith(": zero")


class TestPage:
    def test_is_well_formed_and_fetches_nothing(self, tmp_path: Path) -> None:
        png = tmp_path / "figure-12-rtt.png"
        png.write_bytes(b"\x89PNG")
        found = page(tmp_path, summary(), figures=[png])
        assert found.open == []
        assert found.sources == ["data:image/png;base64,iVBORw=="]
        assert not {"script", "link", "iframe"} & set(found.tags)

    def test_shows_the_three_columns_and_the_verdict(self, tmp_path: Path) -> None:
        cells = page(tmp_path, summary()).cells
        at = cells.index("mean")
        assert cells[at : at + 6] == [
            "mean",
            "659.20 ± 3.40",
            "660.50",
            "660.00",
            "+0.1 sd",
            "agrees",
        ]
        off = summary(arms={"plain": arm(mean_ms=700.0)})
        assert "differs" in page(tmp_path, off).cells

    def test_shows_keys_captures_goodput_noise_and_budget(self, tmp_path: Path) -> None:
        environment = {
            "substrate": "uml",
            "clock": "virtual",
            "seed": 7,
            "packages": {"numpy": "2.4.6"},
            "noise_floor": {"worst_error_ms": 0.0041},
        }
        cells = page(tmp_path, summary(), environment=environment, warnings=["beware"]).cells
        for expected in (
            "beware",
            "K1 (Beijing)",
            "93440",
            "sealed",
            "8.912",
            "234.5",
            "0.0041",
            "packages numpy",
            "2.4.6",
            "245.920",
            "calibrated",
        ):
            assert expected in cells
        assert "noise floor" not in cells

    def test_says_what_the_papers_own_numbers_allow(self, tmp_path: Path) -> None:
        text = " ".join(page(tmp_path, summary()).cells)
        assert "+5.00 ms (95 % CI -2.44 to +12.44, p = 0.19): not told from zero" in text
        assert "variances 4.0 : 1, F test p = 3.3e-11" in text

    def test_escapes_what_comes_from_outside(self, tmp_path: Path) -> None:
        evil = "<script>alert(1)</script>"
        found = page(
            tmp_path,
            summary(arms={evil: arm()}),
            title=evil,
            environment={evil: evil, "number": "1<script>", "noise_floor": {evil: evil}},
            warnings=[evil],
            scenario_toml=evil,
        )
        assert "script" not in found.tags
        assert found.cells.count(evil) >= 4

    def test_an_empty_run_still_has_a_page(self, tmp_path: Path) -> None:
        silent = dict.fromkeys(
            ("min_ms", "mean_ms", "max_ms", "sigma_ms", "jitter_ms", "lag1", "noise")
        )
        nothing = arm(lost=100, budget=(), goodput=(), **silent)
        found = page(tmp_path, Summary(arms={"plain": nothing}))
        assert found.open == []
        assert "0 of 100" in found.cells


class TestTerminal:
    def rendered(self, found: Summary, width: int = 80) -> str:
        console = Console(file=StringIO(), width=width, no_color=True)
        console.print(terminal_table(found))
        assert isinstance(console.file, StringIO)
        return console.file.getvalue()

    def test_fits_eighty_columns(self) -> None:
        text = self.rendered(summary())
        assert "…" not in text
        assert max(len(line) for line in text.splitlines()) <= 80

    def test_one_row_a_figure(self) -> None:
        rows = [line.split() for line in self.rendered(summary()).splitlines()]
        assert "mean 659.20 ± 3.40 660.50 660.00 +0.1 sd agrees" in " ".join(rows[4])
        assert "97 of 100 probes" in self.rendered(summary())

    def test_verdicts_of_captures(self) -> None:
        assert "encrypted: sealed; 8 ESP packets, 8 verify" in self.rendered(summary())
        open_ = SEALED.model_copy(update={"icv_good": 0, "icv_bad": 8})
        assert "NOT SEALED" in self.rendered(summary(captures={"encrypted": open_}))
