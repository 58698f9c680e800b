"""How the arms of an experiment are named and drawn, the same in every table and picture."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Look:
    """How an arm is named and drawn."""

    name: str
    detail: str
    colour: str
    line: Any
    marker: str

    @property
    def title(self) -> str:
        """Name and detail in one line."""
        return f"{self.name}, {self.detail}" if self.detail else self.name


DASHED: Final = (0, (3, 3))
LOOKS: Final = {
    "satellite": Look("satellite leg", "VSAT – 5GC", "#0072B2", "-", "o"),
    "plain": Look("5G plain", "UE – DN", "#D55E00", "-", "s"),
    "encrypted": Look("5G encrypted", "UE – DN", "#009E73", "-", "^"),
    "encrypted_same_radio": Look("5G encrypted", "plain arm's radio", "#CC79A7", DASHED, "D"),
}
_SPARE: Final = ("#56B4E9", "#E69F00", "#000000", "#F0E442")


def looks(arms: list[str]) -> dict[str, Look]:
    """The look of each arm; arms of other experiments get spare colours and their own names."""
    others = [arm for arm in arms if arm not in LOOKS]
    spare = dict(zip(others, islice(cycle(_SPARE), len(others)), strict=True))
    return {
        arm: LOOKS.get(arm) or Look(arm.replace("_", " "), "", spare[arm], "-.", "v")
        for arm in arms
    }
