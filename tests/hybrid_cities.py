"""A small network for tests: six cities that any run of a hybrid network takes milliseconds for."""

from __future__ import annotations

from pathlib import Path

SIX = """name,country,lat,lon,population
Paris,FR,48.85,2.35,6
Brussels,BE,50.85,4.35,5
Zürich,CH,47.37,8.55,4
Milan,IT,45.46,9.19,3
Madrid,ES,40.42,-3.70,2
Warsaw,PL,52.23,21.01,1
"""
PAIR = "Madrid-Warsaw"


class Quiet:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []

    def stage(self, name: str, total: float | None = None) -> None:
        self.stages.append(name)

    def advance(self, done: float, detail: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def write_six(folder: Path) -> Path:
    """The cities' file in a folder."""
    path = folder / "six.csv"
    path.write_text(SIX, encoding="utf-8")
    return path
