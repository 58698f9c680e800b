"""The kernel the network runs in: this machine's own, or a User Mode Linux process."""

from __future__ import annotations

from typing import Literal

from topo.errors import FeatureMissing
from topo.substrates.job import Clock, Job, Substrate, SubstrateName

__all__ = ["Clock", "Job", "Substrate", "SubstrateName", "choose"]


def choose(
    name: Literal["auto", "host", "uml"], clock: Clock | Literal["auto"]
) -> tuple[Substrate, Clock]:
    """The substrate and the clock of a run; raises `FeatureMissing` where this machine has not got them.

    `auto` takes the machine's own kernel where it can carry the network, else User Mode Linux. A clock of `auto` is
    virtual in `uml` and real on the host; asking for the virtual clock leaves only `uml`.
    """
    from topo.substrates.host import HostSubstrate, already_virtual
    from topo.substrates.uml import UmlSubstrate

    host, uml = HostSubstrate(), UmlSubstrate()
    inherited: Clock = "virtual" if already_virtual() else "real"
    if name == "host":
        wanted = inherited if clock == "auto" else clock
        host.check(wanted)
        return host, wanted
    if name == "auto" and clock != "virtual":
        try:
            host.check(inherited)
        except FeatureMissing:
            pass  # not an error: the other substrate is there for this
        else:
            return host, inherited
    wanted = "virtual" if clock == "auto" else clock
    uml.check(wanted)
    return uml, wanted
