"""Progress: what the program inside says, told to a reporter and kept in the log."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from experiments import inside
from experiments.progress import Listener, Log
from topo.errors import FeatureMissing, InputError, MeasurementError, QntnError
from topo.scenario import find, load

PAPER = load(find("paper"))


class Told:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def stage(self, name: str, total: float | None = None) -> None:
        self.calls.append(("stage", name, total))

    def advance(self, done: float, detail: str = "") -> None:
        self.calls.append(("advance", done, detail))

    def note(self, text: str) -> None:
        self.calls.append(("note", text))


def heard(*lines: str) -> tuple[list[tuple[Any, ...]], Listener]:
    told = Told()
    listener = Listener(PAPER, told)
    for line in lines:
        listener.hear(line)
    return told.calls, listener


def event(name: str, **fields: Any) -> str:
    return json.dumps({"event": name, **fields})


def test_an_arm_is_a_stage_of_its_probes() -> None:
    calls, _ = heard(
        event("arm", arm="satellite", probes=100),
        event("probe", arm="satellite", seq=0, rtt="575.265"),
        event("probe", arm="satellite", seq=1, rtt="lost"),
        event("arm-done", arm="satellite"),
    )
    assert calls == [
        ("stage", "satellite: satellite leg, VSAT - 5GC", 100),
        ("advance", 1, "575.265 ms"),
        ("advance", 2, "lost"),
    ]


def test_the_control_arm_is_not_in_the_scenario() -> None:
    calls, _ = heard(event("arm", arm="control", probes=20))
    assert calls == [("stage", "control: the noise floor", 20)]


def test_notes_are_passed_on() -> None:
    calls, listener = heard(event("note", text="tunnel up"))
    assert calls == [("note", "tunnel up")]
    listener.raise_error()


@pytest.mark.parametrize("line", ["", "a library's warning", "3", "[1]", '"x"', '{"arm": 1}', "{"])
def test_what_is_no_event_is_passed_on_as_it_is(line: str) -> None:
    calls, listener = heard(line)
    assert calls == [("note", line)]
    listener.raise_error()


@pytest.mark.parametrize(
    ("code", "kind"), [(1, MeasurementError), (2, InputError), (143, MeasurementError)]
)
def test_the_error_inside_is_the_error_outside(code: int, kind: type[QntnError]) -> None:
    calls, listener = heard(event("error", message="no key", exit_code=code))
    assert calls == []
    with pytest.raises(kind, match=r"^no key$") as raised:
        listener.raise_error()
    assert type(raised.value) is kind


def test_inside_and_outside_speak_alike(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise FeatureMissing("sch_netem", "Load it.")

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(inside, "prepare_forks", lambda *_: None)
    monkeypatch.setattr(inside, "require_root", refuse)
    assert inside.main([str(tmp_path), "plain"]) == 2
    _, listener = heard(*capsys.readouterr().out.splitlines())
    with pytest.raises(InputError, match=r"^missing: sch_netem\. Load it\.$"):
        listener.raise_error()


def test_the_log_keeps_stages_and_notes_and_hands_all_on(tmp_path: Path) -> None:
    told, path = Told(), tmp_path / "log.txt"
    log = Log(path, told)
    log.stage("keys", 3.0)
    log.advance(1.0, "K1")
    log.note("524288 secret bits: 2 × K")
    log.keep("for the file alone")
    Log(path, told).stage("arms")  # a second one goes on where the first stopped
    assert path.read_text(encoding="utf-8") == (
        "keys\n  524288 secret bits: 2 × K\n  for the file alone\narms\n"
    )
    assert told.calls == [
        ("stage", "keys", 3.0),
        ("advance", 1.0, "K1"),
        ("note", "524288 secret bits: 2 × K"),
        ("stage", "arms", None),
    ]
