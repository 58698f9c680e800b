"""`qntn gateway` and its status, `qntn decrypt` on what is no run."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Thread

import pytest

from gateways.metrics import StatusServer
from tests.command_line import Qntn, command_line
from tests.unit.test_gateway_metrics import STATUS


@pytest.fixture
def qntn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Qntn:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return command_line(monkeypatch, capsys)


@pytest.mark.parametrize("words", [("gateway",), ("gateway", "run")])
def test_both_forms_run_a_gateway(
    qntn: Qntn, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr("gateways.gateway.main", lambda arguments: asked.append(arguments) or 3)
    assert qntn(*words, "mine.json")[0] == 3
    assert asked == [["mine.json"]]


def test_a_missing_configuration(qntn: Qntn) -> None:
    code, _, err = qntn("gateway", "nothere.json")
    assert (code, "nothere.json: No such file" in err) == (2, True)


def test_status_of_a_file(qntn: Qntn, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps(STATUS))
    code, out, _ = qntn("gateway", "status", path)
    assert code == 0
    line = next(line for line in out.splitlines() if "0x00001001" in line)
    assert line.strip().split(maxsplit=6) == [
        *("in", "0x00001001", "retired", "a", "10", "840"),
        "6 replays, 8 icv_failures, 9 selector_drops",
    ]
    for said in ("rekeys                      3", "2 hold", "7 outside_selectors", "5 send_ECONN"):
        assert said in out
    assert json.loads(qntn("gateway", "status", path, "--json")[1]) == STATUS


def test_status_of_a_gateway_without_an_sa(qntn: Qntn, tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text(json.dumps(STATUS | {"usable": False}))
    code, out, _ = qntn("gateway", "status", path)
    assert code == 1
    assert "NO SA TO SEND ON" in out


def test_status_of_a_running_gateway(qntn: Qntn) -> None:
    def wake() -> None:
        Thread(target=server.answer, args=(lambda: STATUS,)).start()

    server = StatusServer(0, wake)
    code, out, _ = qntn("gateway", "status", f"http://127.0.0.1:{server.port}", "--json")
    port = server.port
    server.close()
    assert (code, json.loads(out)) == (0, STATUS)
    code, _, err = qntn("gateway", "status", f"http://127.0.0.1:{port}")
    assert code == 1
    assert err.count("\n") == 1
    assert "is the gateway up, with this metrics_port?" in err


@pytest.mark.parametrize(
    ("text", "said"), [("{", "no JSON"), ("[]", "not a gateway's status"), (None, "No such file")]
)
def test_what_is_no_status(qntn: Qntn, tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "status.json"
    if text is not None:
        path.write_text(text)
    code, _, err = qntn("gateway", "status", path)
    assert (code, err.count("\n"), said in err) == (2, 1, True)


def test_decrypt_wants_a_run(qntn: Qntn, tmp_path: Path) -> None:
    code, _, err = qntn("decrypt", tmp_path)
    assert (code, "no captures/*.pcapng" in err) == (2, True)
    (tmp_path / "captures").mkdir()
    (tmp_path / "captures" / "a.pcapng").touch()
    code, _, err = qntn("decrypt", tmp_path)
    assert (code, "esp_sa: No such file" in err) == (2, True)
    (tmp_path / "esp_sa").write_text('"IPv4","10.0.1.1","10.0.1.2","0x1001","ROT13","0x00","",""\n')
    code, _, err = qntn("decrypt", tmp_path)
    assert (code, "esp_sa: line 1: no line of esp_sa: no suite of ours (ROT13" in err) == (2, True)
