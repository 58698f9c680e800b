"""Mininet's host and link, without a shell per host and without a shell per command.

Mininet starts an interactive bash for every host and configures interfaces by typing into it, about 50 ms a host. Here
a host is a network namespace held by a descriptor (`topo.namespaces`), its shell starts when somebody first uses it
(Mininet's prompt, `host.cmd`), and a link is a record of a virtual pair that `topo.network` made over netlink.
"""

from __future__ import annotations

from typing import Any

from mininet.cli import CLI
from mininet.link import Intf, Link
from mininet.net import Mininet
from mininet.node import Node

from topo.namespaces import Namespace


class NamespaceHost(Node):  # type: ignore[misc]
    """A Mininet node in a namespace of its own, whose shell starts at its first command."""

    namespace: Namespace

    def startShell(self, mnopts: str | None = None) -> None:
        """Make the namespace; called by Mininet where it would start a shell."""
        self.namespace = Namespace(self.name)

    @property
    def pid(self) -> int:
        """The id under which Mininet's `mnexec` enters the host."""
        return self.namespace.pid

    @pid.setter
    def pid(self, of_shell: int | None) -> None:
        """Mininet notes its shell's id here: in our hosts a namespace does not need a shell."""

    def cmd(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command in the host's shell, starting it where it does not run yet, and return its output."""
        self._ensure_shell()
        return super().cmd(*args, **kwargs)

    def sendCmd(self, *args: Any, **kwargs: Any) -> Any:
        """Type a command into the host's shell, starting it where it does not run yet."""
        self._ensure_shell()
        return super().sendCmd(*args, **kwargs)

    def _ensure_shell(self) -> None:
        if self.shell is not None:
            return
        # mnexec: (c)lose descriptors, (d)etach from the terminal, (a)ttach to the namespace of that process.
        # With inNamespace set, Mininet would have mnexec make yet another namespace.
        self.inNamespace = False
        try:
            super().startShell(mnopts=f"-cda{self.namespace.pid}")
        finally:
            self.inNamespace = True

    def terminate(self) -> None:
        """End the shell, if there is one, and let the namespace go."""
        if self.shell is not None:
            super().terminate()
        self.namespace.close()


class PlannedIntf(Intf):  # type: ignore[misc]
    """An interface that `topo.network` configures; Mininet only keeps its name and addresses."""

    def config(self, **_params: Any) -> dict[str, Any]:
        """Nothing: the plan has said it all."""
        return {}

    def note_address(self, ip: str, prefix_length: int, mac: str) -> None:
        """Tell Mininet's prompt what netlink has set."""
        self.ip, self.prefixLen, self.mac = ip, prefix_length, mac

    def isUp(self, setUp: bool = False) -> bool:
        """Planned interfaces are up from the start."""
        return True

    def delete(self) -> None:
        """Nothing: the interface goes with its namespace."""


class PlannedLink(Link):  # type: ignore[misc]
    """A virtual pair that exists already."""

    def __init__(self, node1: NamespaceHost, name1: str, node2: NamespaceHost, name2: str) -> None:
        super().__init__(node1, node2, intfName1=name1, intfName2=name2, intf=PlannedIntf)

    @classmethod
    def makeIntfPair(cls, *_args: Any, **_kwargs: Any) -> None:
        """Nothing: the pair has been made over netlink, in place."""

    def delete(self) -> None:
        """Nothing: the pair goes with its namespaces."""

    def status(self) -> str:
        """What Mininet's prompt shows for `links`."""
        return "(OK OK)"


class Prompt(CLI):  # type: ignore[misc]
    """Mininet's prompt, for hosts with a hyphen in their names."""

    identchars = CLI.identchars + "-"


def make_mininet() -> Any:
    """An empty Mininet of such hosts, without switches or controllers.

    Mininet's own initialisation changes settings of the whole machine (socket buffers, file limits, ARP table sizes);
    marking it done leaves the machine alone.
    """
    Mininet.inited = True
    return Mininet(topo=None, build=False, host=NamespaceHost, link=PlannedLink, controller=None)
