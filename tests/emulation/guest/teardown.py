"""Brings a network up and down among things that were there before, and says what is different afterwards."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from topo.network import Network
from topo.planner import build_plan
from topo.scenario import find, load

PLAN = build_plan(load(find("paper")), "plain")
SETTINGS = (
    "net/core/rmem_max",
    "net/core/wmem_max",
    "net/ipv4/tcp_rmem",
    "net/ipv4/ip_forward",
    "fs/file-max",
)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def namespaces() -> set[str]:
    """Every network namespace that any thread on this machine lives in, or any process holds open."""
    found = set()
    for pattern in ("[0-9]*/task/*/ns/net", "[0-9]*/fd/*"):
        for path in Path("/proc").glob(pattern):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                found.add(str(path.readlink()))
    return {name for name in found if name.startswith("net:[")}


def processes() -> set[str]:
    names = (Path(path, "comm").read_text() for path in Path("/proc").glob("[0-9]*"))
    return {name for name in names if not name.startswith("kworker")}


def state() -> dict[str, object]:
    return {
        "links": run("ip", "-br", "link"),
        "named": sorted(path.name for path in Path("/run/netns").iterdir()),
        "namespaces": len(namespaces()),
        "processes": sorted(processes()),
        "settings": {key: Path("/proc/sys", key).read_text() for key in SETTINGS},
    }


if len(sys.argv) > 1:  # the part that is killed
    with Network(PLAN) as network:
        network.popen("UE", ["ping", "10.0.7.2"])
        print("up", flush=True)
        time.sleep(1000)

Path("/run/netns").mkdir(exist_ok=True)
run("ip", "netns", "add", "somebody-elses")
run("ip", "link", "add", "theirs", "type", "dummy")
bystander = subprocess.Popen(["sleep", "100000"])
before = state()

with Network(PLAN) as network:
    pings = [
        network.popen(host, ["ping", "-i", "0.5", PLAN.address("DN")]) for host in ("UE", "VSAT")
    ]
    print("hosts", len(namespaces()) - before["namespaces"], flush=True)
    time.sleep(2)
after = state()
print(
    "same",
    after == before,
    {k: (before[k], after[k]) for k in before if before[k] != after[k]},
    flush=True,
)
print("ended", all(ping.poll() is not None for ping in pings), bystander.poll() is None, flush=True)

try:
    with Network(PLAN) as network:
        raise RuntimeError("in the middle")
except RuntimeError:
    print("after an error", state() == before, flush=True)

victim = subprocess.Popen([sys.executable, __file__, "victim"], stdout=subprocess.PIPE, text=True)
victim.stdout.readline()
orphan = int(run("pgrep", "-x", "ping").split()[0])
victim.send_signal(signal.SIGKILL)
victim.wait()
os.kill(
    orphan, signal.SIGKILL
)  # it outlives its parent; the namespaces go with the last process in them
end = time.monotonic() + 30
while state() != before and time.monotonic() < end:
    time.sleep(0.1)
print("after kill -9", state() == before, flush=True)
bystander.kill()
