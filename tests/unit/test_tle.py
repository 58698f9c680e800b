"""Element set files: what is read, and the one line that is said of each thing wrong."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from topo.errors import InputError
from topo.space.stations import Station
from topo.space.tle import SHIPPED, find_tle_file, parse_tles, read_tles

ISS = """\
ISS (ZARYA)
1 25544U 98067A   08264.51782528 -.00002182  00000-0 -11606-4 0  2927
2 25544  51.6416 247.4627 0006703 130.5360 325.0288 15.72125391563537
"""
"""The example that stands in most descriptions of the format."""
NAME, LINE1, LINE2 = ISS.splitlines()


def test_the_usual_example() -> None:
    [tle] = parse_tles(ISS, "iss.tle")
    assert tle.name == "ISS (ZARYA)"
    assert tle.number == "25544"
    assert tle.place == "iss.tle:2"
    assert (
        abs((tle.epoch - datetime(2008, 9, 20, 12, 25, 40, 104192, tzinfo=UTC)).total_seconds())
        < 1e-5
    )
    assert tle.revolutions_per_day == 15.72125391
    assert tle.eccentricity == 0.0006703


def test_two_lines_or_three_comments_blank_lines_and_any_line_ends() -> None:
    text = f"# from somewhere\r\n\r\n{LINE1}\r\n{LINE2}  \r\n\r\n0 {NAME}\r\n{LINE1}\r\n{LINE2}"
    assert [tle.name for tle in parse_tles(text, "x")] == ["NORAD 25544", "ISS (ZARYA)"]


def test_a_year_before_57_is_of_this_century() -> None:
    line = "1 00005U 58002B   57001.00000000  .00000023  00000-0  28098-4 0  475"
    line += str(sum(int(c) if c.isdigit() else c == "-" for c in line) % 10)
    text = f"{line}\n2 00005  34.2682 348.7242 1859667 331.7664  19.3264 10.82419157413667"
    assert parse_tles(text, "x")[0].epoch == datetime(1957, 1, 1, tzinfo=UTC)


def with_checksum(line: str) -> str:
    return line[:68] + str(sum(int(c) if c.isdigit() else c == "-" for c in line[:68]) % 10)


BAD = {
    "a wrong checksum": (f"{NAME}\n{LINE1[:-1]}8\n{LINE2}", r"f:2: checksum is 8, .* give 7"),
    "a changed digit": (ISS.replace("51.6416", "51.6417"), r"f:3: checksum is 7, .* give 8"),
    "spaces lost": (f"{NAME}\n{LINE1.replace('   ', ' ')}\n{LINE2}", "f:2: 67 characters.*spaces"),
    "two satellites": (
        f"{LINE1}\n{with_checksum(LINE2.replace('25544', '25545'))}",
        "f:2: satellite number 25545, but line 1 is of 25544",
    ),
    "line 2 first": (f"{LINE2}\n{LINE1}", "f:1: line number '2' where line 1"),
    "line 1 twice": (f"{LINE1}\n{LINE1}\n{LINE2}", "f:2: begins with '1 ' where line 2 should be"),
    "a line 3": (f"{NAME}\n3{LINE1[1:]}\n{LINE2}", "f:2: begins with '3 ' where line 1 should be"),
    "line 2 missing": (f"{NAME}\n{LINE1}\n", "f:2: line 2 is missing after it"),
    "only a name": (f"{NAME}\n", "f:1: line 1 is missing after it"),
    "nothing": ("# only words\n", "f: no element set"),
    "letters": (
        f"{LINE1}\n{with_checksum(LINE2.replace('51.6416', '51.64x6'))}",
        "f:2: columns 9 to 16, inclination: ' 51.64x6' is none",
    ),
    "inclination": (
        f"{LINE1}\n{with_checksum(LINE2.replace(' 51.6416', '190.6416'))}",
        "f:2: inclination 190.6416",
    ),
    "no motion": (
        f"{LINE1}\n{with_checksum(LINE2.replace('15.72125391', ' 0.00000000'))}",
        "f:2: mean motion 0.00000000",
    ),
    "day of the year": (
        f"{with_checksum(LINE1.replace('08264.5', '08400.5'))}\n{LINE2}",
        "f:1: day of the epoch 400.51782528",
    ),
}


@pytest.mark.parametrize(("text", "said"), BAD.values(), ids=BAD)
def test_each_fault_is_one_line_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        parse_tles(text, "f")
    assert "\n" not in str(error.value)


def test_every_digit_of_both_lines_is_guarded() -> None:
    for number, line in enumerate((LINE1, LINE2)):
        for column, character in enumerate(line[2:], start=2):
            if character.isdigit():
                changed = line[:column] + str((int(character) + 1) % 10) + line[column + 1 :]
                lines = [LINE1, LINE2]
                lines[number] = changed
                with pytest.raises(InputError, match="checksum"):
                    parse_tles("\n".join(lines), "f")


def test_a_file_or_a_shipped_name(tmp_path: Path) -> None:
    path = tmp_path / "jinan1-a"
    assert find_tle_file("jinan1-a") == SHIPPED / "jinan1-a.tle"
    path.write_text(ISS, encoding="ascii")
    assert [tle.number for tle in read_tles(find_tle_file(str(path)))] == ["25544"]
    with pytest.raises(InputError, match=r"nothing: no such file, .*jinan1-a, jinan1-b"):
        find_tle_file("nothing")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_tles(tmp_path)
    path = tmp_path / "umlaut.tle"
    path.write_text(f"{ISS}Jülich\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"umlaut\.tle:4: not ASCII"):
        read_tles(path)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ((95.0, 116.5), "station X: latitude 95: degrees from -90 to 90"),
        ((40.0, 400.0), "station X: longitude 400"),
        ((float("nan"), 0.0), "latitude nan"),
        ((40.0, 116.5, -6_378_000.0), "altitude -6.378e.06 m is inside the Earth"),
        ((40.0, 116.5, -501.0), "inside the Earth"),
        ((40.0, 116.5, 500_000.0), "above all ground"),
    ],
)
def test_a_station_is_on_the_ground(place: tuple[float, ...], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Station("X", *place)
