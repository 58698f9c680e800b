"""Two-line element sets: read from a file, checked column by column.

The format is that of the NORAD two-line element set (CelesTrak, "NORAD Two-Line Element Set Format";
Spacetrack Report No. 3). A file holds one set or more, each of two lines or of three, the first
being a name. Blank lines and lines that begin with `#` are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from topo.errors import InputError

SHIPPED: Final = Path(__file__).resolve().parent.parent / "orbits"
"""Folder of the element sets that come with the project; both are synthetic."""

LINE_LENGTH: Final = 69

# What stands in which columns (from 1, both ends included). Fields that SGP4 does not use are not looked at.
_EXPONENT = r"[ +-]\d{5}[+-]\d"
_NUMBER = r"[A-Z\d ][\d ]{3}\d"
_LINE_1: Final = (
    (3, 7, _NUMBER, "satellite number"),
    (19, 20, r"\d\d", "year of the epoch"),
    (21, 32, r"[\d ]{3}\.\d{8}", "day of the epoch"),
    (34, 43, r"[ +-]\.\d{8}", "first derivative of the mean motion"),
    (45, 52, _EXPONENT, "second derivative of the mean motion"),
    (54, 61, _EXPONENT, "drag term B*"),
)
_LINE_2: Final = (
    (3, 7, _NUMBER, "satellite number"),
    (9, 16, r"[ \d]{3}\.\d{4}", "inclination"),
    (18, 25, r"[ \d]{3}\.\d{4}", "right ascension of the ascending node"),
    (27, 33, r"\d{7}", "eccentricity"),
    (35, 42, r"[ \d]{3}\.\d{4}", "argument of perigee"),
    (44, 51, r"[ \d]{3}\.\d{4}", "mean anomaly"),
    (53, 63, r"[ \d]{2}\.\d{8}", "mean motion"),
)


@dataclass(frozen=True)
class Tle:
    """One element set whose form and checksums are good."""

    name: str
    """The name line, or `NORAD` and the satellite number."""
    line1: str
    line2: str
    place: str
    """File and line it was read from, for messages."""

    @property
    def number(self) -> str:
        """Satellite catalogue number, as it is written."""
        return self.line1[2:7].strip()

    @property
    def epoch(self) -> datetime:
        """Instant of the elements, UTC, to the microsecond."""
        year = int(self.line1[18:20])
        first_day = datetime(year + (1900 if year >= 57 else 2000), 1, 1, tzinfo=UTC)
        return first_day + timedelta(days=float(self.line1[20:32]) - 1.0)

    @property
    def revolutions_per_day(self) -> float:
        """Mean motion (Kozai)."""
        return float(self.line2[52:63])

    @property
    def eccentricity(self) -> float:
        return float(f"0.{self.line2[26:33]}")


def find_tle_file(name: str) -> Path:
    """The file of that path, or the shipped one of that name (`jinan1-a`).

    Raises `InputError` that lists the shipped names where there is neither.
    """
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.tle"))}
    if Path(name).exists():
        return Path(name)
    if name in shipped:
        return shipped[name]
    raise InputError(f"{name}: no such file, nor a shipped element set ({', '.join(shipped)})")


def read_tles(path: Path) -> list[Tle]:
    """All element sets of a file, in its order; at least one.

    Raises `InputError` with file and line for the first thing that is not as the format has it.
    """
    try:
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not ASCII, as element sets are") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return parse_tles(text, str(path))


def parse_tles(text: str, source: str) -> list[Tle]:
    """All element sets of a text, in its order; at least one. `source` names it in messages."""
    found = list(_sets(text, source))
    if not found:
        raise InputError(f"{source}: no element set: two lines of {LINE_LENGTH} characters each")
    return found


def _sets(text: str, source: str) -> Iterator[Tle]:
    name: tuple[str, str] | None = None  # and the place it stands
    first: tuple[str, str] | None = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line, place = raw.rstrip(), f"{source}:{number}"
        if not line or line.startswith("#"):
            continue
        if first is not None:
            _check_line(line, "2", _LINE_2, place)
            _check_pair(first[0], line, place)
            called = name[0] if name else f"NORAD {line[2:7].strip()}"
            yield Tle(called, first[0], line, first[1])
            name = first = None
        elif name is not None or line.startswith("1 "):
            _check_line(line, "1", _LINE_1, place)
            if not 1 <= float(line[20:32]) < 367:
                raise InputError(f"{place}: day of the epoch {line[20:32].strip()}: 1 to 366 it is")
            first = (line, place)
        elif line.startswith("2 ") or len(line) == LINE_LENGTH:
            raise InputError(f"{place}: line number '{line[0]}' where line 1 of a set should be")
        else:
            name = (line.removeprefix("0 ").strip(), place)
    if first or name:
        what, place = ("line 2", first[1]) if first else ("line 1", name[1] if name else "")
        raise InputError(f"{place}: {what} is missing after it: the file ends")


def _check_line(
    line: str, line_number: str, columns: tuple[tuple[int, int, str, str], ...], place: str
) -> None:
    """Raise `InputError` unless number, length, checksum and fields of one line are good."""
    if line[:2] != f"{line_number} ":
        raise InputError(f"{place}: begins with {line[:2]!r} where line {line_number} should be")
    if len(line) != LINE_LENGTH:
        raise InputError(
            f"{place}: {len(line)} characters, an element line has {LINE_LENGTH}: "
            "were its spaces lost?"
        )
    expected = sum(int(c) if c.isdigit() else c == "-" for c in line[:-1]) % 10
    if line[-1] != str(expected):
        raise InputError(
            f"{place}: checksum is {line[-1]}, the line's digits give {expected}: fetch the set again"
        )
    for first, last, pattern, what in columns:
        if not re.fullmatch(pattern, line[first - 1 : last]):
            raise InputError(
                f"{place}: columns {first} to {last}, {what}: {line[first - 1 : last]!r} is none"
            )


def _check_pair(line1: str, line2: str, place: str) -> None:
    """Raise `InputError` unless both lines are of one satellite in an orbit."""
    if line1[2:7] != line2[2:7]:
        raise InputError(
            f"{place}: satellite number {line2[2:7].strip()}, but line 1 is of {line1[2:7].strip()}"
        )
    if not float(line2[8:16]) <= 180:
        raise InputError(f"{place}: inclination {line2[8:16].strip()}: 0 to 180 degrees it is")
    if not float(line2[52:63]) > 0:
        raise InputError(f"{place}: mean motion {line2[52:63].strip()}: revolutions a day, above 0")
