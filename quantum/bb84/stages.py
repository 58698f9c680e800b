"""The stages of a pass: how long each takes, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

Progress = Callable[[str, float], None]
"""(stage, share of it done in [0, 1])."""


def silent(stage: str, done: float) -> None:
    """Tells nobody."""


@dataclass
class Stages:
    """Times stages and reports their progress."""

    progress: Progress = silent
    times_s: dict[str, float] = field(default_factory=dict)
    """Time spent in each stage so far, both ends together."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Around a stage: 0 at its start, 1 at its end."""
        self.progress(name, 0.0)
        start = perf_counter()
        yield
        self.times_s[name] = self.times_s.get(name, 0.0) + perf_counter() - start
        self.progress(name, 1.0)
