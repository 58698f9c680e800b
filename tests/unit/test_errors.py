"""The tree of exceptions against its drawing in `topo.errors`, and against the whole source."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import topo.errors
from topo.errors import FeatureMissing, GuestFailed, KmsRefused, QntnError, ScenarioError

ROOT = Path(topo.errors.__file__).parents[1]
PACKAGES = ("topo", "quantum", "kms", "gateways", "experiments")
BRANCH = re.compile(
    r"^    (?P<stem>[│ ]*)(?:[├└]── )?(?P<name>\w+) +exit (?P<code>\d)   (?P<why>\S.*)$"
)


class Drawn(NamedTuple):
    parent: str | None
    exit_code: int
    says: str


def drawing() -> dict[str, Drawn]:
    """The tree as drawn: class -> its parent, its exit code, its meaning."""
    found: dict[str, Drawn] = {}
    line_of_descent: list[str] = []
    assert topo.errors.__doc__ is not None
    for line in topo.errors.__doc__.splitlines():
        if (branch := BRANCH.match(line)) is not None:
            depth = len(branch["stem"]) // 4 + ("── " in line)
            del line_of_descent[depth:]
            parent = line_of_descent[-1] if line_of_descent else None
            found[branch["name"]] = Drawn(parent, int(branch["code"]), branch["why"])
            line_of_descent.append(branch["name"])
    return found


class Defined(NamedTuple):
    name: str
    module: str
    bases: list[str]


def defined() -> Iterator[Defined]:
    """Every class of the source."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases = [ast.unparse(base).split(".")[-1] for base in node.bases]
                    yield Defined(node.name, module, bases)


def errors_in_the_source() -> dict[str, str]:
    """Every descendant of `QntnError`: name -> module."""
    classes, found = list(defined()), {"QntnError": "topo.errors"}
    before = 0
    while len(found) > before:
        before = len(found)
        found |= {c.name: c.module for c in classes if found.keys() & set(c.bases)}
    return found


DRAWING = drawing()
SOURCE = errors_in_the_source()


def test_the_drawing_can_be_read() -> None:
    assert list(DRAWING)[:3] == ["QntnError", "InputError", "ScenarioError"]
    assert topo.errors.__doc__ is not None
    assert len(DRAWING) == len(re.findall(r"  exit \d  ", topo.errors.__doc__))


def test_every_error_of_the_project_is_drawn_and_every_drawn_one_exists() -> None:
    assert DRAWING.keys() == SOURCE.keys()


@pytest.mark.parametrize("name", DRAWING)
def test_a_class_is_where_it_is_drawn_and_exits_as_drawn(name: str) -> None:
    error = getattr(importlib.import_module(SOURCE[name]), name)
    drawn = DRAWING[name]
    assert issubclass(error, QntnError)
    assert error.exit_code == drawn.exit_code
    assert drawn.parent is None or error.__bases__[0].__name__ == drawn.parent
    assert (drawn.parent is None) == (error is QntnError)


@pytest.mark.parametrize("name", [n for n, module in SOURCE.items() if module != "topo.errors"])
def test_what_is_defined_elsewhere_is_drawn_with_its_module(name: str) -> None:
    assert f"(`{SOURCE[name]}`)" in DRAWING[name].says


def test_only_bad_input_exits_with_2() -> None:
    assert {name for name, drawn in DRAWING.items() if drawn.exit_code == 2} == {
        "InputError",
        "ScenarioError",
        "FeatureMissing",
    }


def test_what_the_messages_say() -> None:
    assert str(ScenarioError("a.toml", "sites.user", "is missing")) == (
        "a.toml: sites.user: is missing"
    )
    assert str(ScenarioError("a.toml", "", "not TOML")) == "a.toml: not TOML"
    assert str(FeatureMissing("sch_netem", "Load it.")) == "missing: sch_netem. Load it."
    assert str(GuestFailed("panic")) == "panic"
    assert str(GuestFailed("panic", Path("c"))) == "panic (console log: c)"
    refused = KmsRefused(503, "no keys")
    assert (str(refused), refused.status) == ("KMS answered 503: no keys", 503)
