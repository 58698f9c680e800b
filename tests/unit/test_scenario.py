"""Scenario files: what the schema takes, and the one line that it says of each bad file."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from experiments import published
from topo.errors import ScenarioError
from topo.scenario import SHIPPED, Scenario, find, load, parse
from topo.space.geometry import elevation_deg

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad_scenarios").glob("*.toml"))
FILE = Path("file.toml")


def good() -> dict[str, Any]:
    """The tables of the shortest good scenario, the caller's own to change."""
    return tomllib.loads((HERE / "good_scenario.toml").read_text(encoding="utf-8"))


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`below` with the keys of `above` set, table by table."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        tables = isinstance(old, dict) and isinstance(value, dict)
        both[key] = laid_over(old, value) if tables else value  # type: ignore[arg-type]
    return both


def write_bad(bad: Path, directory: Path) -> tuple[Path, str]:
    """A whole scenario file with what is wrong in `bad`, and what is to be said of it: the first comment line."""
    text = bad.read_text(encoding="utf-8")
    path = directory / bad.name
    path.write_text(tomli_w.dumps(laid_over(good(), tomllib.loads(text))), encoding="utf-8")
    return path, text.splitlines()[0].removeprefix("# ")


def paths_to_leaves(table: dict[str, Any]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for key, value in table.items():
        deeper = paths_to_leaves(value) if isinstance(value, dict) else [()]
        found += [(key, *path) for path in deeper]
    return found


def test_the_least_that_must_be_said() -> None:
    scenario = parse(good(), FILE)
    assert (scenario.seed, scenario.probe.count, scenario.probe.interval_ms) == (1, 100, 1000.0)
    assert (scenario.sessions, scenario.iperf) == ({}, None)
    assert scenario.links.local.rate_up_mbps == 1000.0
    assert scenario.start.isoformat() == "2024-11-30T04:00:00+00:00"


@pytest.mark.parametrize("path", paths_to_leaves(good()), ids=".".join)
def test_each_key_of_it_is_required_and_named(path: tuple[str, ...]) -> None:
    tables = table = good()
    *above, key = path
    for name in above:
        table = table[name]
    del table[key]
    with pytest.raises(ScenarioError) as refused:
        parse(tables, FILE)
    if key == "culmination_deg":  # of a circular orbit: a real one has elements instead
        assert "elements are for a real one: give one of them" in str(refused.value)
    else:
        assert str(refused.value) == f"file.toml: {'.'.join(path)}: is missing"


@pytest.mark.parametrize("bad", BAD, ids=lambda path: path.stem)
def test_what_is_wrong_is_said_in_one_line(bad: Path, tmp_path: Path) -> None:
    path, expected = write_bad(bad, tmp_path)
    with pytest.raises(ScenarioError) as refused:
        load(path)
    assert str(refused.value) == f"{path}: {expected}"
    assert (refused.value.path, refused.value.exit_code) == (path, 2)
    assert expected.startswith(f"{refused.value.key}: ")


def test_an_unknown_key_is_told_before_the_missing_one_that_it_stands_for() -> None:
    table = good()
    table["sites"]["user"]["lat"] = table["sites"]["user"].pop("latitude_deg")
    with pytest.raises(ScenarioError, match=r"sites\.user\.lat: unknown key"):
        parse(table, FILE)


def test_a_whole_number_will_do_for_a_quantity() -> None:
    table = laid_over(good(), {"sites": {"user": {"latitude_deg": 31}}})
    assert parse(table, FILE).sites.user.latitude_deg == 31.0


def test_every_other_kind_of_element_can_be_on_a_hop() -> None:
    elements: list[dict[str, Any]] = [
        {"kind": "propagation", "delay_ms": 1.0},
        {"kind": "fixed", "delay_ms": 1.0},
        {"kind": "frame_wait", "period_ms": 1.0},
        {"kind": "scheduling_request", "period_ms": 1.0},
        {"kind": "drx", "cycle_ms": 2.0, "on_ms": 1.0},
        {"kind": "retransmission", "probability": 0.5, "min_ms": 1.0, "max_ms": 2.0},
        {"kind": "empirical", "samples_ms": [1.0]},
        {"kind": "gaussian", "mu_ms": 1.0, "sigma_ms": 1.0},
    ]
    scenario = parse(laid_over(good(), {"links": {"user": {"up": elements}}}), FILE)
    assert [element.kind for element in scenario.links.user.up] == [e["kind"] for e in elements]


def test_the_mask_decides_to_the_last_bit() -> None:
    def with_mask(mask_deg: float) -> dict[str, Any]:
        return laid_over(good(), {"satellite": {"elevation_mask_deg": mask_deg}})

    elevation = float(elevation_deg(31.0, 103.6, 0.0, 125.0, 42164.0))  # Chengdu, the lower one
    assert parse(with_mask(elevation), FILE).satellite.elevation_mask_deg == elevation
    with pytest.raises(ScenarioError, match="Chengdu"):
        parse(with_mask(elevation + 1e-9), FILE)


def test_a_scenario_does_not_change() -> None:
    scenario = parse(good(), FILE)
    with pytest.raises(ValidationError):
        scenario.seed = 2


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.toml")), ids=lambda path: path.stem)
def test_a_shipped_scenario_is_good_and_goes_by_its_name(path: Path) -> None:
    assert load(find(path.stem)).name == path.stem


def test_the_shipped_scenarios_show_every_architecture() -> None:
    shown = {load(path).architecture for path in SHIPPED.glob("*.toml")}
    assert shown == {"satellite-relay", "transparent", "regenerative"}


def test_the_papers_scenario_is_the_papers() -> None:
    paper = load(find("paper"))
    assert [site.name for site in (paper.sites.user, paper.sites.gateway, paper.sites.core)] == [
        "Shanghai",
        "Chengdu",
        "Beijing",
    ]
    assert (paper.satellite.longitude_deg, paper.satellite.orbit_radius_km) == (125.0, 42164.0)
    assert paper.links.line.delay_ms == published.LEASED_LINE_ONE_WAY_MS
    compared = {arm.published: paper.probe.count for arm in paper.arms.values() if arm.published}
    assert compared == {name: arm.n for name, arm in published.ARMS.items()}


def test_a_file_comes_before_a_shipped_scenario_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("paper") == SHIPPED / "paper.toml"
    (tmp_path / "paper").mkdir()  # the folder of a run, say
    assert find("paper") == SHIPPED / "paper.toml"
    (tmp_path / "leo").write_text(tomli_w.dumps(good()))
    assert find("leo") == Path("leo")
    assert load(find("leo")).name == "good"


@pytest.mark.parametrize("name", ["papper", "papper.toml", "", "."])
def test_what_there_is_instead_of_no_such_file(name: str) -> None:
    with pytest.raises(
        ScenarioError, match=r"there is: hybrid, leo, paper, regenerative, transparent"
    ):
        find(name)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"name = ", "not TOML: "),
        (b"name = 'a'\nname = 'b'\n", "not TOML: "),
        (b"name = '\xff'", "cannot be read: "),
        (None, "cannot be read: "),
    ],
    ids=["cut off", "twice", "not UTF-8", "gone"],
)
def test_what_is_no_scenario_file(content: bytes | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScenarioError) as refused:
        load(path)
    assert str(refused.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(refused.value)


# -- changes ---------------------------------------------------------------------------------------


def test_single_keys_can_be_changed_as_the_file_is_read() -> None:
    changed = load(
        find("paper"),
        ["probe.count = 7", 'arms.plain.title = "mine"', "links.line = {delay_ms = 1.5}"],
    )
    paper = load(find("paper"))
    assert (changed.probe.count, changed.arms["plain"].title) == (7, "mine")
    assert changed.probe.interval_ms == paper.probe.interval_ms
    assert changed.arms["plain"].session == paper.arms["plain"].session
    # A table is laid over, not put in the place of, the one in the file.
    assert changed.links.line == paper.links.line.model_copy(update={"delay_ms": 1.5})
    assert load(find("paper"), ["seed = 1", "seed = 2"]).seed == 2


def test_a_new_arm_can_be_added() -> None:
    changed = load(find("paper"), ['arms.mine = {title = "mine", session = "plain"}'])
    assert list(changed.arms)[-1] == "mine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("sites.user.latitude_deg = 95.0", "sites.user.latitude_deg: input should be less than"),
        ("probe.cuont = 3", "probe.cuont: unknown key; did you mean 'count'?"),
        ("probe = 3", "probe: input should be a valid dictionary"),
    ],
)
def test_a_bad_change_is_as_bad_as_a_bad_file(change: str, said: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        load(find("paper"), [change])
    assert str(refused.value).startswith(f"{SHIPPED / 'paper.toml'}: {said}")


@pytest.mark.parametrize("change", ["seed", "seed 3", "seed = ", "seed = 3 4"])
def test_what_is_no_assignment(change: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        load(find("paper"), [change])
    assert str(refused.value).startswith(f"--set: {change}: not an assignment of TOML such as")
    assert "\n" not in str(refused.value)


def test_a_scenario_survives_json() -> None:
    """Strict about types, the schema still reads what it wrote."""
    scenario = load(find("paper"))
    assert Scenario.model_validate_json(json.dumps(scenario.model_dump(mode="json"))) == scenario
