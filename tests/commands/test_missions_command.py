"""`qntn missions`: its options, its JSON, its files."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from experiments.cli_missions import missions
from experiments.missions import DEFAULT_RATE_BITS_PER_S, STATIONS, parse_demands
from kms.demand import Demand
from topo.errors import InputError

FILES = {
    *("plan.json", "passes.csv", "relays.csv", "pools.csv", "alarms.csv"),
    *("timeline.png", "timeline.svg", "pools.png", "pools.svg"),
}


def run(*arguments: str) -> Result:
    app = typer.Typer()
    app.command()(missions)
    return CliRunner().invoke(app, ["--days", "10", "--clear-sky", "0.8", *arguments])


def test_json() -> None:
    result = run("--json", "--policy", "priority", "--priority", "Shanghai-Beijing=3")
    assert result.exit_code == 0, result.output
    plan: dict[str, Any] = json.loads(result.stdout)
    assert plan["policy"] == "priority"
    assert plan["from"] == "2024-11-21T16:00:00.000Z"  # the elements' day in the paper's zone
    assert list(plan["stations"]) == ["Beijing", "Shanghai", "Jinan", "Stellenbosch"]
    assert plan["pairs"]["Beijing–Shanghai"]["priority"] == 3
    assert sum(plan["fates"].values()) == sum(
        sum(station["fates"].values()) for station in plan["stations"].values()
    )
    assert plan["fates"]["flown"] == len(plan["missions"]) > 3
    for name, station in plan["stations"].items():
        mine = [one for one in plan["missions"] if one["station"] == name]
        assert station["made_bits"] == sum(one["key_bits"] for one in mine)
        assert station["on_demand"] + station["on_schedule"] == len(mine)
    for relay in plan["relays"]:
        assert relay["k2_spent_bits"] - 256 == relay["k1_spent_bits"] == relay["block_bits"] + 256
    # Neither satellite nor station serves two at a time, said in the file as well.
    flown = sorted(plan["missions"], key=lambda one: one["aos"])
    assert all(a["los"] < b["aos"] for a, b in pairwise(flown))


def test_table_and_files(tmp_path: Path) -> None:
    out = tmp_path / "plan"
    result = run("--out", str(out))
    assert result.exit_code == 0, result.output
    assert "on demand" in result.stdout
    assert "cloud is ASSUMED" in result.stdout
    assert {path.name for path in out.iterdir()} == FILES
    assert all(path.stat().st_size > 100 for path in out.iterdir())
    plan = json.loads((out / "plan.json").read_text())
    with (out / "passes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(plan["fates"].values())
    assert sum(row["fate"] == "flown" for row in rows) == plan["fates"]["flown"]
    assert result.stdout.count(str(out)) == len(FILES)
    again = run("--out", str(out))
    assert isinstance(again.exception, InputError)
    assert "not empty" in str(again.exception)


@pytest.mark.parametrize("start", ["9999-12-30", "0001-01-02"])
def test_a_start_that_is_no_time_of_satellites(start: str) -> None:
    assert "from 1958 to 2100" in str(run("--from", start).exception)


@pytest.mark.parametrize(
    "option", ["--guard-s", "--every-days", "--horizon-days", "--days", "--sun-deg"]
)
@pytest.mark.parametrize("value", ["inf", "nan"])
def test_numbers_that_are_none(option: str, value: str) -> None:
    assert run(option, value).exit_code == 2


def test_never_is_said_by_zero() -> None:
    plan = json.loads(run("--json", "--every-days", "0").stdout)
    assert plan["every_days"] is None
    assert {one["trigger"] for one in plan["missions"]} == {"demand"}


def test_demands() -> None:
    first, second = parse_demands(
        [
            "Shanghai-Beijing=0.5",
            "Jinan-Shanghai=1",
            "Beijing-Shanghai=4@30",
            "Beijing-Shanghai=2@9",
        ],
        ["Jinan-Shanghai=2"],
        STATIONS,
        low_water_bits=7.0,
    )
    assert first == Demand(
        ("Beijing", "Shanghai"), 0.5, ((9.0, 2.0), (30.0, 4.0)), low_water_bits=7.0
    )
    assert second == Demand(("Shanghai", "Jinan"), 1.0, priority=2, low_water_bits=7.0)
    by_default = parse_demands([], [], STATIONS)
    assert [demand.pair for demand in by_default] == [
        ("Beijing", name) for name in ("Shanghai", "Jinan", "Stellenbosch")
    ]
    assert {demand.bits_per_s for demand in by_default} == {DEFAULT_RATE_BITS_PER_S}


@pytest.mark.parametrize(
    ("demands", "priorities", "why"),
    [
        (["Beijing-Lhasa=1"], [], "'Beijing-Lhasa=1': two stations of Beijing, Shanghai"),
        (["Beijing-Shanghai"], [], "as in Beijing-Shanghai=0.5"),
        (["Beijing-Shanghai=fast"], [], "'fast' is not a number"),
        (["Beijing-Shanghai=1@soon"], [], "'soon' is not a number"),
        (["Beijing-Shanghai=1", "Shanghai-Beijing=2"], [], "a later rate is RATE@DAY"),
        (["Beijing-Shanghai=-1"], [], "must not be negative"),
        (["Beijing-Shanghai=1"], ["Beijing-Jinan=1"], "that pair has no demand"),
        (["Beijing-Shanghai=1"], ["Beijing-Shanghai=1.5"], "'1.5' is not a whole number"),
        (["Beijing-Shanghai=1"], ["Beijing-Shanghai=inf"], "'inf' is not a whole number"),
    ],
)
def test_bad_demands(demands: list[str], priorities: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_demands(demands, priorities, STATIONS)


def test_one_station_is_no_pair() -> None:
    with pytest.raises(InputError, match="name another with --station"):
        parse_demands([], [], STATIONS[:1])
