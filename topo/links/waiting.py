"""A waiting line: when each packet of one direction of a hop leaves, in order and repeatably.

No socket and no clock in here: the caller says when a packet came and is told when it may go. The
same class runs in the waiting process of an emulated hop (`topo.links.waiter`) and in the predictor
(`topo.links.predictor`), so that both obey one law, to the nanosecond.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from topo.errors import InputError
from topo.links.delays import DelayElement, ElementState

WINDOW_NS = 1_000_000_000
"""The random stream of a direction begins anew in every window of this length, ns."""


def direction_rng(seed: int, name: str) -> np.random.Generator:
    """The random generator of one named direction of a run: the same wherever it is made.

    `SeedSequence` is itself a hash, published and stable (unlike Python's), so the name's bytes go
    in as they are: two names, or two seeds, give independent streams.
    """
    if seed < 0:
        raise InputError(f"seed {seed} is negative")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *name.encode()])))


class WindowedRng:
    """The luck of one direction of a run: a stream of its own for every window of time.

    So the luck of a moment does not depend on what was sent before it. Two runs that differ by a few packets (a tunnel
    that exchanges keys now and then) meet the same waits with all the others, and can be compared probe by probe.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._key = direction_rng(seed, name).integers(0, 2**64, 2, np.uint64)
        self._window: int | None = None
        self._stream = np.random.Generator(np.random.Philox(key=self._key))

    def at(self, at_ns: int) -> np.random.Generator:
        """The stream of the window that `at_ns` falls into, where the last call of that window left it."""
        window = at_ns // WINDOW_NS
        if window != self._window:
            # The counter's first word counts a window's own draws, its second the windows.
            counter = np.array([0, window % 2**64, 0, 0], np.uint64)
            self._stream = np.random.Generator(np.random.Philox(key=self._key, counter=counter))
            self._window = window
        return self._stream


class WaitingLine:
    """One direction of one hop: the elements' waits one after the other, first in, first out.

    `name` names the direction and picks its random stream. `epoch_ns` is the run's epoch on the
    clock that `release_ns` is given: 0 if that clock starts with the run. Only elements that a
    waiting process realises are admitted, `InputError` for others.
    """

    def __init__(
        self, elements: Iterable[DelayElement], seed: int, name: str, epoch_ns: int = 0
    ) -> None:
        self._stages = [(element, ElementState()) for element in elements]
        for element, _ in self._stages:
            if element.realised_by != "waiting":
                raise InputError(f"{name}: {element.law()} is netem's, not a waiting line's")
        self._luck = WindowedRng(seed, name)
        self._epoch_ns = epoch_ns
        self._last_release_ns: int | None = None

    def release_ns(self, arrival_ns: int, size_bytes: int) -> int:
        """When the frame of `size_bytes` that came at `arrival_ns` may go, on the same clock.

        Each element sees the frame when the one before it lets it go. No frame overtakes another:
        the result never decreases from call to call. Every call takes one draw per random element.
        """
        at_ns = arrival_ns - self._epoch_ns
        if self._stages:
            rng = self._luck.at(at_ns)
            for element, state in self._stages:
                at_ns += element.wait_ns(at_ns, size_bytes, rng, state)
        release_ns = at_ns + self._epoch_ns
        if self._last_release_ns is not None:
            release_ns = max(release_ns, self._last_release_ns)
        self._last_release_ns = release_ns
        return release_ns
