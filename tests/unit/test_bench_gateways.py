"""The gateway benchmark's words: what it says without strongSwan, and its table and plot of known figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from experiments.bench import gateway_strongswan, gateway_wireguard
from experiments.bench.gateways_report import COLUMNS, draw, print_table, value_of


def found(*, peer: bool) -> dict[str, Any]:
    """A result in which every figure of a contender is a round multiple of strongSwan's."""
    names = {"direct": 8.0, "qntn AES-128-GCM": 4.0} | ({"strongSwan": 1.0} if peer else {})
    contenders: dict[str, Any] = {}
    for name, factor in names.items():
        medians: dict[str, dict[str, float]] = {}
        for test, figure, _, _ in COLUMNS:
            medians.setdefault(test, {})[figure] = 1000 * factor
        medians["tcp1"] |= {"external": 0.25}
        contenders[name] = {"info": {}, "medians": medians}
    contenders["qntn AES-128-GCM"]["medians"]["tcp1"]["of_cipher"] = 0.125
    if peer:
        info = {"version": "5.9.8", "plugins": ["aesni", "gcm"], "esp_aead": ["AES_GCM_16[aesni]"]}
        contenders["strongSwan"]["info"] = info
    left_out = {} if peer else {"strongSwan": gateway_strongswan.REMEDY}
    return {"rounds": 3, "seconds": 2.0, "contenders": contenders, "left_out": left_out}


def test_the_table_shows_ratios_and_how_strongswan_was_set_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(found(peer=True))
    said = capsys.readouterr().out
    assert "× 4.00" in said
    assert "plugins in order: aesni gcm" in said
    assert "AES_GCM_16[aesni]" in said
    assert "12%" in said


def test_without_strongswan_the_table_names_the_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(found(peer=False))
    said = capsys.readouterr().out
    assert "apt install" in said
    assert "×" not in said


def test_packets_a_second_are_shown_in_thousands() -> None:
    assert value_of(found(peer=True), "strongSwan", "udp64", "pps") == 1.0
    assert value_of(found(peer=True), "strongSwan", "tcp1", "mbit_per_s") == 1000.0


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    draw(found(peer=True), tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("peer", "programs"),
    [
        (gateway_strongswan, "charon-systemd and swanctl"),
        (gateway_wireguard, "wireguard-go and wg"),
    ],
)
def test_a_machine_without_a_peer_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, peer: Any, programs: str
) -> None:
    monkeypatch.setattr(peer, "missing", lambda *programs: list(programs))
    lacking = peer.lacking()
    assert lacking is not None
    assert programs in lacking
    assert "apt install" in lacking
