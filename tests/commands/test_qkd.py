"""A QKD run's folder: what is in it, that it adds up, and what bad input says."""

from __future__ import annotations

import json
import re
import stat
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.passes import PassOptions, best_pass
from experiments.qkd import KEY_FILE, QkdOptions, QkdOutcome, run_qkd
from experiments.qkd_input import apply_changes, circular, known_station, of_contact
from quantum.bb84 import source
from quantum.bb84.eavesdropper import Eavesdropper
from quantum.bb84.session import run_pass
from quantum.optics import preset
from tests.command_line import Qntn, command_line
from topo.errors import InputError

SLOW = "source.pulse_rate_hz=6.25e7"
CLEAR = QkdOptions(channel="jinan1-clear", changes=(SLOW,), seed=5, plots=False)


class Quiet:
    def stage(self, name: str, total: float | None = None) -> None: ...
    def advance(self, done: float, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


def fly(out: Path, **options: Any) -> QkdOutcome:
    settings = {**vars(CLEAR), "out": out, **options}
    return run_qkd(circular(511, 77.9, 10), QkdOptions(**settings), Quiet())


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> QkdOutcome:
    return fly(tmp_path_factory.mktemp("flown"))


def table_of(outcome: QkdOutcome) -> pd.DataFrame:
    return pd.read_csv(outcome.folder / "pass.csv")


def test_the_key_block_is_for_its_owner_and_as_long_as_the_report_says(flown: QkdOutcome) -> None:
    assert flown.key_file is not None
    assert flown.key_file.name == KEY_FILE
    assert stat.S_IMODE(flown.key_file.stat().st_mode) == 0o600
    assert 8 * len(flown.key_file.read_bytes()) == flown.report["secret_bits"] > 10_000


def test_it_is_the_key_that_the_session_makes_of_the_same_seed(flown: QkdOutcome) -> None:
    link, parameters = apply_changes(preset("jinan1-clear"), source.JINAN1, [SLOW])
    made = run_pass(circular(511, 77.9, 10).geometry, link, parameters, seed=5)
    assert flown.key_file is not None
    assert flown.key_file.read_bytes() == made.key_bob
    same = set(made.report) - {"stages_s", "pass"}
    assert {name: flown.report[name] for name in same} == {n: made.report[n] for n in same}
    assert made.report["pass"].items() <= flown.report["pass"].items()


def test_the_report_is_the_file_and_says_what_the_module_says(flown: QkdOutcome) -> None:
    written = json.loads((flown.folder / "report.json").read_text())
    assert written == json.loads(json.dumps(flown.report))
    assert written["no_key"] is None
    assert written["optimum"] is written["window_s"] is None
    assert written["changes"] == [SLOW]
    assert written["link"]["provenance"]
    assert written["link"]["detector"]["efficiency"] == 0.5
    assert written["origin"]["kind"] == "circular"
    assert written["secret_bits"] == pytest.approx(written["expected"]["secret_bits"], rel=0.15)


def test_the_table_adds_up_to_the_report(flown: QkdOutcome) -> None:
    table, report = table_of(flown), flown.report
    assert len(table) * report["pass"]["slot_s"] == report["pass"]["duration_s"]
    assert table[["clicks_1", "clicks_2", "clicks_3"]].to_numpy().sum() == report["detections"]
    assert table["sifted"].sum() == report["sifted_bits"]
    assert table["errors"].sum() / table["sifted"].sum() == pytest.approx(report["qber"])
    assert table["known"].sum() == 0
    assert table["expected_key_bits"].iloc[-1] == pytest.approx(report["expected"]["secret_bits"])
    terms = [name for name in table if re.fullmatch(r"loss_.+_dB", str(name))]
    assert np.allclose(table[terms].sum(axis=1), table["loss_dB"])
    assert table["loss_dB"].min() == pytest.approx(report["pass"]["min_loss_dB"])


def test_an_optimised_pass_uses_a_window_and_says_what_it_gained(tmp_path: Path) -> None:
    flown = fly(tmp_path / "run", optimise=True, channel="jinan1-typical")
    report, table = flown.report, table_of(flown)
    used = table[table["used"] == 1]
    assert report["window_s"] == [used["t_s"].iloc[0], used["t_s"].iloc[-1]]
    assert 0 < len(used) < len(table)
    assert (table.loc[table["used"] == 0, ["clicks_1", "sifted"]] == 0).all(axis=None)
    assert report["optimum"]["gain"] > 1.9
    assert report["parameters"]["basis_x_probability"] > 0.7
    assert report["secret_bits"] > 1.6 * report["optimum"]["baseline_secret_bits"]
    assert table["baseline_key_bits"].iloc[-1] == pytest.approx(
        report["optimum"]["baseline_secret_bits"]
    )


def test_a_pass_without_key_leaves_its_reason_and_its_table(tmp_path: Path) -> None:
    flown = fly(tmp_path / "run", eavesdropper=Eavesdropper(0.4))
    assert flown.key_file is None
    assert not (flown.folder / KEY_FILE).exists()
    report, table = json.loads((flown.folder / "report.json").read_text()), table_of(flown)
    assert report["no_key"].startswith("no key: ")
    assert report["secret_bits"] == 0
    assert report["qber"] == pytest.approx(report["expected"]["qber"] + 0.4 / 4, abs=0.01)
    assert table["known"].sum() / table["sifted"].sum() == pytest.approx(0.2, abs=0.01)


def test_fading_moves_the_counts_of_a_second_but_not_their_mean(
    flown: QkdOutcome, tmp_path: Path
) -> None:
    calm, faded = table_of(flown), table_of(fly(tmp_path / "run", fading=True))
    for table, low, high in ((calm, 0.7, 1.3), (faded, 1.5, np.inf)):
        expected = table["expected_clicks_1"]
        assert low < ((table["clicks_1"] - expected) ** 2 / expected).mean() < high
    assert faded["clicks_1"].sum() == pytest.approx(calm["clicks_1"].sum(), rel=0.02)


def test_the_shipped_pass_over_beijing() -> None:
    """The window that the paper logged: 22:40:01 to 22:47:29 UTC+8 on 22 November 2024."""
    options = PassOptions(stations=(known_station("beijing"),), night=date(2024, 11, 22))
    found = of_contact(best_pass(options))
    assert "2024-11-22 14:40:01 to 14:47:29 UTC, culmination 77.9°" in found.title
    assert len(found.geometry.t_s) == 448
    assert found.origin["night"] == "2024-11-22"
    assert found.origin["sky"]["sun_elevation_deg"] < -12
    json.dumps(found.origin)


def test_changes_of_link_and_source() -> None:
    link, parameters = apply_changes(
        preset("jinan1-clear"),
        source.JINAN1,
        ["link.receiver_m=0.6", "link.detectors = 2", "source.intensities=0.6,0.2,0", "source.bound=hoeffding"],
    )  # fmt: skip
    assert vars(link)["receiver_m"] == 0.6
    assert link.detector.detectors == 2
    assert link.provenance["receiver_m"] != preset("jinan1-clear").provenance["receiver_m"]
    assert parameters.intensities == (0.6, 0.2, 0.0)
    assert parameters.bound == "hoeffding"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("link.nothing=1", "there is no nothing; it has"),
        ("link.receiver_m=wide", "'wide' is not a number"),
        ("link.receiver_m=nan", "'nan' is not a number"),
        ("link.receiver_m=-1", "receiver_m"),
        ("link.detector=1", "detector is a part"),
        ("link.receiver_m", "not an assignment such as"),
        ("receiver_m=1", "not an assignment such as"),
        ("source.intensities=0.1,0.2,0", "mu2 = 0.2 must be below mu1 = 0.1"),
        ("source.brightness=1", "no brightness"),
    ],
)
def test_a_change_that_cannot_be_names_itself(change: str, says: str) -> None:
    with pytest.raises(InputError, match="--set") as raised:
        apply_changes(preset("jinan1-clear"), source.JINAN1, [change])
    assert says in str(raised.value)


@pytest.fixture
def qntn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Qntn:
    """Run the command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return command_line(monkeypatch, capsys)


def test_the_command_prints_the_report_as_json(qntn: Qntn) -> None:
    code, out, _ = qntn("qkd", "--set", SLOW, "--channel", "jinan1-clear", "--no-plots", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["origin"]["station"]["name"] == "Beijing"
    assert report["pass"]["duration_s"] == 448
    [folder] = Path("runs").iterdir()
    assert re.fullmatch(r"\d{8}T\d{6}Z-qkd", folder.name)
    assert json.loads((folder / "report.json").read_text()) == report


def test_the_command_without_key_fails_and_says_why(qntn: Qntn) -> None:
    arguments = ("--culmination-deg", "60", "--no-plots", "--out", "here", "--eavesdropper", "1")
    code, out, _ = qntn("qkd", "--set", SLOW, *arguments)
    assert code == 1
    assert "no key: QBER" in out
    assert "run folder" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--station", "Atlantis"), "station 'Atlantis': Beijing, Shanghai, or one with its place"),
        (("--station", "Deep=40,116,-7000"), "inside the Earth"),
        (("--night", "yesterday"), "a date such as 2024-11-22"),
        (("--night", "2025-11-22"), "take elements of nearer that date"),
        (("--tle", "nothing.tle"), "no such file, nor a shipped element set"),
        (("--altitude-km", "500", "--night", "2024-11-22"), "without --tle, --station, --night"),
        (("--blinding", "0.6", "--intercept-resend", "0.6"), "must be at most 1"),
        (("--set", "source.intensities=0.1,0.2,0"), "mu2 = 0.2 must be below mu1 = 0.1"),
    ],
)
def test_bad_input_is_one_line_and_makes_no_folder(
    qntn: Qntn, arguments: tuple[str, ...], says: str
) -> None:
    code, _, err = qntn("qkd", *arguments)
    assert code == 2
    [line] = [line for line in err.splitlines() if line.startswith("qntn: ")]
    assert says in line
    assert not Path("runs").exists()


def test_a_folder_that_holds_something_is_left_alone(qntn: Qntn) -> None:
    Path("full").mkdir()
    Path("full/mine").touch()
    code, _, err = qntn("qkd", "--out", "full")
    assert code == 2
    assert "is not empty; choose another folder with --out" in err
