"""docs/scenario.md against the schema: every key is there with its default, and every example can be read."""

from __future__ import annotations

import re
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from topo import scenario
from topo.links import delays
from topo.scenario import SHIPPED, Scenario, parse

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "scenario.md").read_text(encoding="utf-8")
REFERENCE = TEXT[TEXT.index("\n## Reference\n") : TEXT.index("\n## On the command line\n")]
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)

OF_EVERY_ELEMENT = {"kind", "basis", "source"}
TABLES: dict[str, tuple[type[BaseModel], ...]] = {
    "Top level": (Scenario,),
    "`[sites.*]`": (scenario.Site,),
    "`[satellite]`": (scenario.Satellite,),
    "`[links.*]`": (scenario.Link,),
    "`[links.line]`": (scenario.Line,),
    "`[sessions.NAME.*]`": (scenario.Session,),
    "`[arms.NAME]`": (scenario.Arm,),
    "`[probe]`": (scenario.Probe,),
    "`[gateways]`": (scenario.Gateways,),
    "`[keys]`": (scenario.Keys,),
    "`[keys.first]` and `[keys.second]`": (scenario.QuantumPass,),
    "`[keys.eavesdropper]`": (scenario.Eavesdropping,),
    "`[keys.hybrid]`": (scenario.EntangledPairs,),
    "`[iperf]`": (scenario.Goodput,),
    "`fixed`, `propagation`": (delays.Fixed, delays.Propagation),
    "`frame_wait`, `scheduling_request`": (delays.FrameWait, delays.SchedulingRequest),
    "`drx`": (delays.Drx,),
    "`retransmission`": (delays.Retransmission,),
    "`empirical`": (delays.Empirical,),
    "`gaussian`": (delays.Gaussian,),
}
"""Heading of the reference -> the models whose keys its table lists."""
KINDS_OF_LINK = set(scenario.Links.model_fields)


def rows(heading: str) -> dict[str, str]:
    """Key -> default, as the tables under a heading of the reference say."""
    section = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", REFERENCE, re.M | re.S)
    assert section is not None, f"docs/scenario.md has no heading {heading}"
    lines = section[1].splitlines()
    found = {}
    for line in lines[lines.index("| key | default | meaning |") :]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            found[cells[0].strip("`")] = cells[1].strip("`")
    return found


def fields(heading: str) -> dict[str, FieldInfo]:
    """The fields that a table must list: its models' own, without what another table says of them."""
    found: dict[str, FieldInfo] = {}
    for model in TABLES[heading]:
        found |= model.model_fields
    if issubclass(TABLES[heading][0], delays.DelayElement):
        return {name: field for name, field in found.items() if name not in OF_EVERY_ELEMENT}
    if TABLES[heading] == (scenario.Line,):
        return {n: field for n, field in found.items() if n not in scenario.Link.model_fields}
    return found


def default(field: FieldInfo) -> str:
    """A field's default as the document writes it."""
    if field.is_required():
        return "required"
    match field.default:
        case None:
            text = "–"
        case scenario.Waits():
            text = "no elements"
        case BaseModel():
            text = "see there"
        case datetime() as start:
            text = start.strftime("%Y-%m-%dT%H:%M:%SZ")
        case bool() as switch:
            text = str(switch).lower()
        case str() as word:
            text = f'"{word}"'
        case ():
            text = "[]"
        case number:
            text = str(number)
    return text


@pytest.mark.parametrize("heading", TABLES)
def test_every_key_is_documented_with_its_default_and_no_other(heading: str) -> None:
    assert rows(heading) == {name: default(field) for name, field in fields(heading).items()}


def test_no_table_of_the_schema_is_left_out() -> None:
    def subclasses(model: type[BaseModel]) -> set[type[BaseModel]]:
        ours = [m for m in model.__subclasses__() if m.__module__ == model.__module__]
        return {model}.union(*(subclasses(below) for below in ours))

    inner = {scenario.Model, scenario.Sites, scenario.Links, scenario.Waits}
    elements = {m for m in subclasses(delays.DelayElement) if "kind" in m.model_fields}
    schema = (subclasses(scenario.Model) - inner) | (elements - {delays.Serialise})
    assert schema == {model for models in TABLES.values() for model in models}


def test_what_every_element_takes_is_documented() -> None:
    found = rows("Delay elements")
    own = {name: default(field) for name, field in delays.DelayElement.model_fields.items()}
    assert found == {"kind": "required", **own}
    assert "`serialise`" in REFERENCE
    assert all(f"`{key}`" in REFERENCE for key in delays.Serialise.model_fields)


@pytest.mark.parametrize("kind", sorted(KINDS_OF_LINK | set(scenario.Sites.model_fields)))
def test_every_kind_of_link_and_place_is_documented(kind: str) -> None:
    assert f"`{kind}`" in REFERENCE


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `change` in place of its own, table by table."""
    result = dict(base)
    for key, value in change.items():
        inner = result.get(key)
        if isinstance(inner, dict) and isinstance(value, dict):
            result[key] = merged(inner, value)
        else:
            result[key] = value
    return result


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_every_example_is_a_scenario_or_a_change_of_the_paper_s(example: str) -> None:
    table = tomllib.loads(example)
    if "architecture" not in table:
        paper = tomllib.loads((SHIPPED / "paper.toml").read_text(encoding="utf-8"))
        changed = merged(paper, table)
        assert changed != paper
        table = changed
    parse(table, DOCS / "scenario.md")


def test_there_is_a_complete_example() -> None:
    assert any("architecture" in tomllib.loads(example) for example in EXAMPLES)
