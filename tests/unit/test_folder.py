"""The run folder: where everything is, what it may not be, and the scenario that it keeps."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from experiments.folder import RunFolder
from topo.errors import InputError
from topo.scenario import SHIPPED, find, load

NOW = datetime(2024, 11, 30, 4, 0, 5, tzinfo=UTC)


def test_a_run_without_a_folder_gets_one_by_time_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create("paper", None, NOW)
    assert folder.root == tmp_path / "runs" / "20241130T040005Z-paper"
    assert {path.name for path in folder.root.iterdir()} == {"captures", "ledgers", "logs", "pki"}


def test_two_runs_within_a_second_do_not_share_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder.create("paper", None, NOW)
    with pytest.raises(InputError, match="is not empty"):
        RunFolder.create("paper", None, NOW)


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_folder_is_taken(tmp_path: Path, exists: bool) -> None:
    out = tmp_path / "a" / "b"
    if exists:
        out.mkdir(parents=True)
    assert RunFolder.create("paper", out).root == out


def test_a_relative_folder_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert RunFolder.create("paper", Path("here")).root == tmp_path / "here"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"is not empty; choose another folder with --out"):
        RunFolder.create("paper", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_a_file_is_no_folder(tmp_path: Path, out: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be the run folder: Not a directory"):
        RunFolder.create("paper", tmp_path / out)


@pytest.mark.parametrize("name", ["my run", "a,b", "it's", "tab\t"])
def test_a_name_that_no_guest_could_be_told_is_refused_before_anything_is_made(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InputError, match="without spaces, commas or quotes"):
        RunFolder.create("paper", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_the_private_keys_are_nobody_elses(tmp_path: Path) -> None:
    folder = RunFolder.create("paper", tmp_path / "run")
    assert stat.S_IMODE(folder.private.stat().st_mode) == 0o700


def test_where_everything_is() -> None:
    folder = RunFolder(Path("/r"))
    assert [str(path) for path in (folder.scenario, folder.summary, folder.samples)] == [
        "/r/scenario.toml",
        "/r/summary.json",
        "/r/samples.csv",
    ]
    assert [str(path) for path in (folder.environment, folder.report, folder.log)] == [
        "/r/environment.json",
        "/r/report.html",
        "/r/log.txt",
    ]
    assert str(folder.esp_sa) == "/r/esp_sa"
    assert str(folder.capture("plain", "ue")) == "/r/captures/plain-ue.pcapng"
    assert str(folder.arm("plain")) == "/r/logs/plain"
    assert str(folder.ledger("KMS-U")) == "/r/ledgers/kms-u.sqlite"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_the_scenario_it_keeps_is_the_scenario(path: Path, tmp_path: Path) -> None:
    folder, scenario = RunFolder.create("run", tmp_path / "run"), load(path)
    folder.write_scenario(scenario)
    assert load(folder.scenario) == scenario


def test_the_scenario_it_keeps_is_complete(tmp_path: Path) -> None:
    """Also what the file left to defaults, so that a later version with other defaults runs the same."""
    folder = RunFolder.create("run", tmp_path / "run")
    folder.write_scenario(load(find("leo")))
    text = folder.scenario.read_text()
    for said in ("timeout_ms = 3000.0", 'policy = "fail-closed"', "loss_up = 0.0", "basis ="):
        assert said in text
