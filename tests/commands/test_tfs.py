"""The constant-rate experiment: the line of a scenario, both modes on it, the observer."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments.folder import new_folder
from experiments.tfs import (
    PLAIN,
    TfsOptions,
    capacity,
    entropy_bits,
    gaps_us,
    measure,
    predicted_added_ms,
    share_guessed,
    windows,
    write_report,
)
from experiments.tfs_line import (
    NS_PER_S,
    TRAFFIC,
    TfsLine,
    arrivals,
    constant,
    inner_packet,
    line_of,
    plain,
)
from experiments.tfs_plots import write_figure
from experiments.tfs_table import print_report
from gateways.suites import SUITES, Suite
from topo.errors import InputError
from topo.scenario import find, load

LINE = TfsLine(rate_bps=1_200_000, delay_ns=270_000_000)
"""1500 octets take 10 ms."""


def test_the_line_of_the_paper() -> None:
    paper = load(find("paper"))
    up, down = line_of(paper), line_of(paper, "down")
    assert (up.rate_bps, down.rate_bps) == (5_000_000, 20_000_000)
    # Propagation by the paper's equation 1 over both space hops, the modems' 13.55 ms, the ground line's 20 ms.
    assert up.delay_ns == pytest.approx((122.96 + 124.33 + 13.55 + 20) * 1e6, rel=0.002)
    assert (up.payload_octets, up.slot_octets) == (1438, 1500)
    without = load(find("paper"), [f"arms.{name}.tunnel = false" for name in paper.arms])
    with pytest.raises(InputError, match="no arm with a tunnel"):
        line_of(without)


def test_plain_esp_sends_at_once_and_queues() -> None:
    """1400 octets become 1464: 62 and the padding to 4; 9.76 ms on the line."""
    packets = [
        (0, inner_packet(1400, 0)),
        (0, inner_packet(1400, 1)),
        (10**9, inner_packet(1400, 2)),
    ]
    passage = plain(LINE, packets)
    assert passage.sent == [(0, 1464), (9_760_000, 1464), (10**9, 1464)]
    assert passage.delays_ns == [279_760_000, 289_520_000, 279_760_000]


def test_a_constant_rate_sends_in_its_slots() -> None:
    """Slots every 20 ms: a packet at 1 ns waits for the second one, a long one for two."""
    packets = [
        (0, inner_packet(100, 0)),
        (1, inner_packet(100, 1)),
        (40_000_001, inner_packet(1438, 2)),
    ]
    passage = constant(LINE, packets, 600_000, seconds=0.1)
    assert passage.sent == [(n * 20_000_000, 1500) for n in range(5)]
    behind_ns = 10_000_000 + LINE.delay_ns
    assert passage.delays_ns == [behind_ns, 20_000_000 - 1 + behind_ns, 39_999_999 + behind_ns]


def test_a_full_queue_drops_the_same_in_both_modes() -> None:
    packets = [
        (0, inner_packet(1400, n)) for n in range(150)
    ]  # 1.75 s of the line, of which 1 s may wait
    for passage in (plain(LINE, packets), constant(LINE, packets, LINE.rate_bps, 1.0)):
        assert 30 < passage.dropped < 60
        assert len(passage.delays_ns) + passage.dropped == 150
        assert max(passage.delays_ns) < 1.1 * NS_PER_S + LINE.delay_ns
    with pytest.raises(InputError, match=r"constant rate 1.3 Mbit/s: the line has 1.2"):
        constant(LINE, packets, 1_300_000, 1.0)


def test_lone_packets_wait_half_a_slot() -> None:
    """Poisson arrivals see time averages: the wait is uniform over the slot."""
    packets = arrivals("sensor", 600, seed=3)
    added_ms = (
        np.array(constant(LINE, packets, 120_000, 600).delays_ns) - plain(LINE, packets).delays_ns
    ) / 1e6
    standard_error_ms = 100 / math.sqrt(12 * len(packets))
    predicted_ms = predicted_added_ms(LINE, 120_000, 100)
    assert predicted_ms == pytest.approx(50 + 10 - 164 * 8 / 1200)
    assert abs(added_ms.mean() - predicted_ms) < 4 * standard_error_ms


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_capacity_does_not_depend_on_the_packets(suite: Suite) -> None:
    line = TfsLine(10**6, 0, suite)
    short, long = (capacity(line, octets, 300_000) for octets in (64, 1400))
    bound = short["constant_bound"]
    assert short["plain_share"] < 0.51
    for found in (short, long):
        assert 0.99 * bound < found["constant_share"] <= bound
    assert 0.93 < bound < 0.96


def test_capacity_by_hand() -> None:
    """64 octets in AES-128-GCM and UDP are 128, 1400 are 1464; 1434 of each 1500 at a constant rate."""
    assert capacity(LINE, 64, 64_000)["plain_share"] == 64 / 128
    assert capacity(LINE, 1400, 140_000)["plain_share"] == 1400 / 1464
    assert capacity(LINE, 64, 64_000)["constant_bound"] == 1434 / 1500


def test_entropy_and_gaps() -> None:
    assert entropy_bits([]) == entropy_bits([7, 7, 7]) == 0
    assert entropy_bits([1, 2, 3, 4]) == 2
    assert entropy_bits([1, 1, 2, 3]) == 1.5
    assert gaps_us([(0, 1), (1_000_400, 1), (3_000_000, 1)]) == [1000, 2000]


def test_an_observer_guesses_what_differs_and_nothing_else() -> None:
    few, many = [(10**9, 100), (6 * 10**9, 100)], [(n * 10**7, 100) for n in range(1000)]
    learnt = {"few": windows(few, 10), "many": windows(many, 10)}
    assert share_guessed(learnt, learnt) == 1
    same = {"one": windows(many, 10), "other": windows(many, 10)}
    assert share_guessed(same, same) == 0.5


def test_the_whole_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measure(LINE, TfsOptions((300_000, 1_200_000), seconds=20, capacity_octets=50_000))
    slow, fast = report["modes"]["0.3 Mbit/s"], report["modes"]["1.2 Mbit/s"]
    for mode in (slow, fast):
        assert mode["length_entropy_bits"] == mode["gap_entropy_bits"] == 0
        assert (mode["traces"], mode["kinds"]) == (1, len(TRAFFIC))
        assert mode["guessed"] == mode["guessed_by_chance"] == 1 / len(TRAFFIC)
    in_clear = report["modes"][PLAIN]
    assert in_clear["traces"] == len(TRAFFIC)
    assert in_clear["guessed"] > 0.5
    assert in_clear["length_entropy_bits"] > 0
    added = {(row["mode"], row["traffic"]): row["added_mean_ms"] for row in report["delays"]}
    assert 0 < added["1.2 Mbit/s", "voice"] < added["0.3 Mbit/s", "voice"]
    assert added[PLAIN, "voice"] is None

    folder = new_folder("tfs", tmp_path / "out")
    path = write_report(report, folder)
    assert json.loads(path.read_text()) == report
    assert [one.name for one in write_figure(report, folder)] == ["tfs.png", "tfs.svg"]
    with pytest.raises(InputError, match="not empty"):
        new_folder("tfs", folder)
    print_report(report)
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines()]
    assert ["0.3", "Mbit/s", "40.000", "0.00", "0.00", "1", "of", "4", "25", "%", "3.2"] in lines


def test_the_same_seed_is_the_same_traffic() -> None:
    assert arrivals("web", 30, 1) == arrivals("web", 30, 1) != arrivals("web", 30, 2)
    voice = arrivals("voice", 10, 1)
    assert (len(voice), {len(packet) for _, packet in voice}) == (500, {200})
    assert arrivals("silence", 10, 1) == []
