"""The command line: what bad usage and bad input say and return, and the delay budget."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import run as run_module
from tests.command_line import Qntn, Said, command_line
from topo.errors import FeatureMissing, GuestFailed, NoKeyFromPass, QntnError
from topo.scenario import SHIPPED, find, load

PAPER = load(find("paper"))


@pytest.fixture
def qntn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Qntn:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return command_line(monkeypatch, capsys)


def paper_with(tmp_path: Path, old: str, new: str) -> Path:
    """The paper's scenario with one thing changed."""
    text = (SHIPPED / "paper.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


# -- bad input: exit 2, one line on standard error, nothing done --------------------------------------


LATITUDE = "latitude_deg = 31.1 "
BAD = {
    "latitude of 95": (
        (LATITUDE, "latitude_deg = 95.0 "),
        "sites.user.latitude_deg: input should be less than or equal to 90 (given: 95.0)",
    ),
    "unknown key": (
        (LATITUDE, "lattitude_deg = 31.1 "),
        "sites.user.lattitude_deg: unknown key; did you mean 'latitude_deg'?",
    ),
    "no unit": (
        ("delay_ms = 20.0 ", "delay = 20.0 "),
        "links.line.delay: unknown key; did you mean 'delay_ms'?",
    ),
    "below the horizon": (
        ("longitude_deg = 125.0", "longitude_deg = 10.0"),
        "satellite: Chinasat-26 is -26.1° above the horizon of Shanghai; it must be at least 5° "
        "(satellite.elevation_mask_deg)",
    ),
    "not TOML": (
        ('title = "Quantum-', "title = Quantum-"),
        "not TOML: Invalid value (at line 9, column 9)",
    ),
}
"""What is changed in the paper's scenario, and what is to be said of it."""


@pytest.mark.parametrize("command", ["run", "delays"])
@pytest.mark.parametrize(("change", "said"), BAD.values(), ids=BAD)
def test_a_bad_scenario_is_one_line_with_the_file_and_the_key(
    qntn: Qntn, tmp_path: Path, command: str, change: tuple[str, str], said: str
) -> None:
    path = paper_with(tmp_path, *change)
    assert qntn(command, path) == Said(2, "", f"qntn: {path}: {said}\n")
    assert [left.name for left in tmp_path.iterdir()] == ["mine.toml"]


@pytest.mark.parametrize("command", ["run", "delays"])
def test_a_scenario_that_there_is_not(qntn: Qntn, tmp_path: Path, command: str) -> None:
    code, out, err = qntn(command, "papper")
    assert (code, out) == (2, "")
    assert err == (
        "qntn: papper: no such file, and no shipped scenario of that name "
        "(there is: hybrid, leo, paper, regenerative, transparent)\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "paper", "--arm", "fast"),
        ("run", "paper", "--arm", "plain", "--arm", "fast"),
        ("delays", "paper", "--arm", "fast"),
    ],
)
def test_an_arm_that_there_is_not(qntn: Qntn, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, _, err = qntn(*arguments)
    assert code == 2
    assert err == (
        "qntn: no arm fast in paper (there is: satellite, plain, encrypted, encrypted_same_radio)\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("reproduce", "--probes", "1"), "--probes"),
        (("reproduce", "--probes", "many"), "--probes"),
        (("reproduce", "--seed", "-1"), "--seed"),
        (("reproduce", "--clock", "sundial"), "--clock"),
        (("reproduce", "--substrate", "kvm"), "--substrate"),
        (("reproduce", "leo"), "leo"),
        (("run",), "scenario"),
        (("run", "paper", "photons"), "photons"),
        (("run", "paper", "--probes", "1"), "--probes"),
        (("delays", "--colour"), "--colour"),
        (("teleport",), "teleport"),
    ],
    ids=" ".join,
)
def test_bad_usage_exits_with_2_and_names_it(
    qntn: Qntn, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    code, out, err = qntn(*arguments)
    assert (code, out) == (2, "")
    assert named in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# -- other failures: the exit code of the error's class, one line -------------------------------------


@pytest.mark.parametrize("command", [("reproduce",), ("run", "leo")])
def test_a_kernel_without_netem_is_named_before_anything_is_made(
    qntn: Qntn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def refuse(*_: Any) -> None:
        raise FeatureMissing("sch_netem", "Load it.")

    monkeypatch.setattr(run_module, "choose", refuse)
    said = qntn(*command, "--substrate", "host")
    assert said == Said(2, "", "qntn: missing: sch_netem. Load it.\n")
    assert list(tmp_path.iterdir()) == []


def test_an_arm_whose_end_is_cut_off_is_said_before_anything_is_made(
    qntn: Qntn, tmp_path: Path
) -> None:
    path = paper_with(tmp_path, 'published = "satellite"', 'published = "satellite"\ntunnel = true')
    said = "qntn: arm satellite: VSAT is between the gateways, outside the tunnel\n"
    assert qntn("run", path) == Said(2, "", said)


@pytest.mark.parametrize("command", [("reproduce",), ("run", "paper"), ("delays", "paper")])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sites.user.latitude_deg=95.0", "sites.user.latitude_deg: input should be less than"),
        ("probe.cuont=3", "probe.cuont: unknown key; did you mean 'count'?"),
        ("probe.count:3", "--set: probe.count:3: not an assignment of TOML"),
    ],
)
def test_a_bad_change_is_one_line_with_the_key(
    qntn: Qntn, command: tuple[str, ...], change: str, said: str
) -> None:
    code, out, err = qntn(*command, "--set", change)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_changes_reach_the_plan(qntn: Qntn) -> None:
    """A satellite straight above the ground station is nearer to it, and the line is what is said."""
    found = json.loads(
        qntn(
            "delays",
            "--json",
            "--set",
            "satellite.longitude_deg=103.6",
            "--set",
            "links.line.delay_ms=1",
        ).out
    )
    hops = {hop["hop"]: hop["one_way_ms"] for hop in found["hops"]}
    assert hops["HTS - GS"] < 122.96 < hops["VSAT - HTS"]
    assert hops["GS - EG-N"] == 1.0


def test_gateways_that_would_not_wait_for_an_answer_are_said_before_anything_is_made(
    qntn: Qntn, tmp_path: Path
) -> None:
    path = paper_with(tmp_path, "[gateways]", "[gateways]\nretransmit_s = 0.5")
    code, out, err = qntn("run", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "gateways.retransmit_s: 0.5 s is not longer than the round trip" in err


def test_a_run_folder_in_use_is_left_alone(
    qntn: Qntn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Chosen:
        name = "uml"

    monkeypatch.setattr(run_module, "choose", lambda *_: (Chosen(), "virtual"))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "summary.json").write_text("{}")
    code, out, err = qntn("run", "leo", "--out", "old")
    assert (code, out) == (2, "")
    assert err == f"qntn: {tmp_path}/old is not empty; choose another folder with --out\n"
    assert (tmp_path / "old" / "summary.json").read_text() == "{}"
    (tmp_path / "file").write_text("x")
    code, _, err = qntn("run", "leo", "--out", "file")
    assert (code, err.count("\n"), "Not a directory" in err) == (2, 1, True)


@pytest.mark.parametrize("error", [GuestFailed("panic", Path("log")), NoKeyFromPass("cloudy")])
def test_a_failed_run_is_one_line_and_exit_1(
    qntn: Qntn, monkeypatch: pytest.MonkeyPatch, error: QntnError
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(run_module, "run_scenario", fail)
    assert qntn("reproduce", "--json") == Said(1, "", f"qntn: {error}\n")


def test_ctrl_c_is_no_traceback(qntn: Qntn, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run_scenario", interrupt)
    code, out, err = qntn("reproduce", "--json")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), {"probes": 100, "seed": PAPER.seed, "substrate": "auto", "clock": "auto", "arms": ()}),
        (
            ("--probes", "10", "--seed", "7", "--clock", "virtual", "--no-captures"),
            {"probes": 10, "seed": 7, "clock": "virtual", "captures": False, "goodput": True},
        ),
    ],
)
def test_what_the_command_line_says_reaches_the_run(
    qntn: Qntn,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    wanted: dict[str, Any],
) -> None:
    asked: dict[str, Any] = {}

    def note(scenario: Any, options: Any, _: Any) -> None:
        asked.update(vars(options), probes=scenario.probe.count, seed=scenario.seed)
        raise NoKeyFromPass("far enough")

    monkeypatch.setattr(run_module, "run_scenario", note)
    for command in (("reproduce",), ("run", "paper")):
        assert qntn(*command, *arguments).code == 1
        assert {name: asked[name] for name in wanted} == wanted


# -- the delay budget -----------------------------------------------------------------------------------


def test_the_papers_budget_in_the_terminal(qntn: Qntn) -> None:
    code, out, err = qntn("delays")
    assert (code, err) == (0, "")
    rows = {
        cells[0].strip(): cells[1].strip()
        for line in out.splitlines()
        if len(cells := line.strip("│ ").split("│")) == 2
    }
    assert rows["VSAT - HTS"] == "122.96"
    assert rows["HTS - GS"] == "124.33"
    assert rows["GS - EG-N"] == "20.00"
    assert rows["one way, satellite hops"] == "247.29"
    assert rows["theoretical RTT, equation (2)"] == "534.57"


def test_the_papers_budget_for_machines(qntn: Qntn) -> None:
    code, out, err = qntn("delays", "paper", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["scenario"], found["architecture"]) == ("paper", "satellite-relay")
    assert round(found["satellite_one_way_ms"], 2) == 247.29
    assert (round(found["one_way_ms"], 2), round(found["rtt_ms"], 2)) == (267.29, 534.57)
    assert [hop["hop"] for hop in found["hops"] if hop["one_way_ms"] > 0] == [
        "VSAT - HTS",
        "HTS - GS",
        "GS - EG-N",
    ]
    assert sum(hop["one_way_ms"] for hop in found["hops"]) == pytest.approx(
        found["one_way_ms"], abs=1e-5
    )


@pytest.mark.parametrize("name", ["transparent", "regenerative", "leo"])
def test_every_shipped_scenario_has_a_budget(qntn: Qntn, name: str) -> None:
    code, out, _ = qntn("delays", name, "--json")
    found = json.loads(out)
    assert (code, found["scenario"]) == (0, name)
    assert found["rtt_ms"] == pytest.approx(2 * found["one_way_ms"])
    assert (found["rtt_ms"] < 25) == (name == "leo")


def test_an_arms_whole_plan(qntn: Qntn) -> None:
    code, out, _ = qntn("delays", "--arm", "encrypted")
    assert code == 0
    assert "plan paper/encrypted" in out
    assert "link 3: VSAT - HTS  10.0.3.0/24  user" in out
    assert "netem delay 136.508 ms rate 5 Mbit/s" in out
    assert "gateway processing, measured natively" in out
    assert "  KMS-U   Shanghai   end host" in out
    found = json.loads(qntn("delays", "--arm", "encrypted", "--json").out)
    assert out.endswith("\n".join(found["plan"]) + "\n")


@pytest.mark.parametrize("command", ["reproduce", "run", "delays"])
def test_help_names_every_option(qntn: Qntn, command: str) -> None:
    code, out, err = qntn(command, "--help")
    assert (code, err) == (0, "")
    assert "--json" in out
    assert all(option in out for option in ("--probes", "--clock", "--out")) == (
        command != "delays"
    )


# -- changing one thing ---------------------------------------------------------------------------------


def test_set_changes_one_key(qntn: Qntn) -> None:
    code, out, err = qntn("delays", "--set", "links.line.delay_ms=1.5", "--json")
    assert (code, err) == (0, "")
    hops = {hop["hop"]: hop["one_way_ms"] for hop in json.loads(out)["hops"]}
    assert hops["GS - EG-N"] == 1.5
    assert hops["VSAT - HTS"] == pytest.approx(122.958, abs=1e-3)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            "gateways.rekey_after = 10",
            "gateways.rekey_after: unknown key; did you mean 'rekey_after_s'?",
        ),
        ("satellite.orbit_radius_km = 'high'", "satellite.orbit_radius_km: "),
        ("rekey", "--set: rekey: not an assignment of TOML"),
    ],
)
def test_a_change_that_cannot_be_is_one_line(qntn: Qntn, change: str, wanted: str) -> None:
    code, _, err = qntn("delays", "--set", change)
    assert code == 2
    assert wanted in err
    assert len(err.strip().splitlines()) == 1


# -- start-up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("experiments.cli", {"numpy", "pydantic", "rich", "cryptography"}),
        ("experiments.terminal", {"scipy", "pandas", "matplotlib"}),
        ("experiments.shell", {"scipy", "skyfield", "pandas"}),
    ],
)
def test_what_starts_often_imports_nothing_that_it_does_not_need(
    module: str, heavy: set[str]
) -> None:
    """`qntn --help`, every command that shows progress, and the program inside a guest."""
    program = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert module in loaded
    assert not heavy & set(loaded)
