"""K7, K14: two KME processes that were apart settle their ledgers when they meet; a rolled-back one is found out."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest

from experiments import cli
from kms.alarms import AlarmKind
from kms.client import DeliveredKey, Kms014Client
from kms.configuration import KmsConfiguration
from kms.key_id import parse_key_id
from kms.kme import Kme
from kms.ledger import Ledger
from kms.peer import Peer
from kms.reconcile import disagreements, summarise
from kms.server import utc_now
from kms.site import CONFIGURATION, make_pair
from kms.steady_clock import SteadyClock
from tests.kms_process import TIMEOUT_S, KmsProcess, start
from topo.errors import KmsRefused, ProtocolError

pytestmark = pytest.mark.interop
Pair = tuple[Path, Path]


def two_free_ports() -> int:
    """The first of two neighbouring TCP ports that nobody has at the moment."""
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", port + 1))
                return port


def change_peer(folder: Path, **changes: object) -> None:
    """Of a site's configuration, what it says of the other site."""
    path = folder / CONFIGURATION
    content = json.loads(path.read_text())
    content["peer"] |= changes
    path.write_text(json.dumps(content))


def make_linked(folder: Path, key_bytes: int, port: int) -> Pair:
    """Two sites of `qntn kms init`, in touch every fifth of a second."""
    at_u, at_n = (path.parent for path in make_pair(folder, key_bytes, port, 0, datetime.now(UTC)))
    for site in (at_u, at_n):
        change_peer(site, reconcile_every_s=0.2)
    return at_u, at_n


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_linked(tmp_path, 100_000, two_free_ports())


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def taken(kms: KmsProcess, master: str, slave: str, number: int) -> list[str]:
    client: Kms014Client = kms.client(master)
    names = [key.key_id for key in client.get_key(slave, number)]
    client.close()
    return names


def fetched(kms: KmsProcess, slave: str, master: str, names: list[str]) -> None:
    client = kms.client(slave)
    assert len(client.get_key_with_ids(master, names)) == len(names)
    client.close()


def rounds(both: tuple[KmsProcess, KmsProcess]) -> list[int]:
    """How often each site has heard the other."""
    return [kms.log.count("/qntn/v1/summary") for kms in both]


def settle(both: tuple[KmsProcess, KmsProcess]) -> None:
    """Wait until each site has heard the other a few times more."""
    before = rounds(both)
    until(lambda: all(now > then + 2 for now, then in zip(rounds(both), before, strict=True)))


def left_to_settle(pair: Pair) -> list[str]:
    """Of two sites that are not being served."""
    summaries = []
    for folder in pair:
        with Ledger(folder / "ledger.sqlite", (folder / "ledger.secret").read_bytes()) as ledger:
            summaries.append(summarise(ledger))
    return disagreements(*summaries)


def test_k14_traffic_at_both_sites_while_apart(pair: Pair) -> None:
    at_u = start(pair[0])
    outward = taken(at_u, "EG-U", "EG-N", 20)
    until(lambda: "not reconciled" in at_u.log)  # site N is not there
    at_u.stop()
    at_n = start(pair[1])
    fetched(at_n, "EG-N", "EG-U", outward[:12])
    inward = taken(at_n, "EG-N", "EG-U", 5)
    at_n.stop()
    assert left_to_settle(pair)

    both = start(pair[0]), start(pair[1])
    fetched(both[0], "EG-U", "EG-N", inward)
    fetched(both[1], "EG-N", "EG-U", outward[12:])
    until(lambda: all("destroyed" in kms.log for kms in both))
    settle(both)
    for kms in both:
        kms.stop()
    assert left_to_settle(pair) == []


class Line:
    """The other KME's way to a port; cut, it keeps what is sent until it is whole again, like TCP."""

    def __init__(self, to_port: int, ends: ExitStack) -> None:
        self.whole = threading.Event()
        self.whole.set()
        self._to_port, self._ends = to_port, ends
        self._entrance = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port: int = self._entrance.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """After both KMEs have ended."""
        self._entrance.shutdown(socket.SHUT_RD)
        self._accepting.join()

    def _accept(self) -> None:
        carrying = []
        with suppress(OSError):  # the entrance is closed
            while True:
                here = self._ends.enter_context(self._entrance.accept()[0])
                there = self._ends.enter_context(socket.socket())
                if there.connect_ex(("127.0.0.1", self._to_port)) != 0:
                    here.close()
                    continue
                for ends in ((here, there), (there, here)):
                    carrying.append(threading.Thread(target=self._carry, args=ends, daemon=True))
                    carrying[-1].start()
        for thread in carrying:
            thread.join()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):  # one end has gone: so shall the other
            while data := source.recv(1 << 16):
                self.whole.wait()
                sink.sendall(data)
        self.whole.wait()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def lines_between(pair: Pair, port: int) -> Iterator[tuple[Line, Line]]:
    """What the sites at `port` and the next one have to reach each other, instead of the ports themselves."""
    with ExitStack() as ends:
        lines = Line(port + 1, ends), Line(port, ends)
        for folder, line in zip(pair, lines, strict=True):
            change_peer(folder, url=f"https://127.0.0.1:{line.port}")
        yield lines
        for line in lines:
            line.close()


@dataclass
class Traffic:
    """The SAEs of one direction, and all keys that they have had, by key_ID."""

    master: str
    slave: str
    taken: dict[str, bytes] = field(default_factory=dict)
    fetched: dict[str, bytes] = field(default_factory=dict)

    def run(
        self, at_master: KmsProcess, at_slave: KmsProcess, over: threading.Event, rng: Random
    ) -> None:
        """Take keys, fetch some of those waiting, try one again; until it is `over`."""
        master, slave = at_master.client(self.master), at_slave.client(self.slave)
        while not over.wait(0.02):
            _note(self.taken, master.get_key(self.slave, rng.randint(1, 4)))
            waiting = self.waiting()
            names = rng.sample(waiting, min(len(waiting), rng.randint(1, 3)))
            _note(self.fetched, slave.get_key_with_ids(self.master, names))
            with pytest.raises(KmsRefused, match="400"):
                slave.get_key_with_ids(self.master, [rng.choice([*self.fetched])])
        master.close()
        slave.close()

    def waiting(self) -> list[str]:
        return [name for name in self.taken if name not in self.fetched]

    def finish(self, at_slave: KmsProcess, rng: Random) -> None:
        """Fetch what is waiting; then nothing can be had again."""
        slave = at_slave.client(self.slave)
        for name in self.waiting():
            _note(self.fetched, slave.get_key_with_ids(self.master, [name]))
        assert self.fetched == self.taken
        for name in rng.sample([*self.taken], min(len(self.taken), 200)):
            with pytest.raises(KmsRefused, match="400"):
                slave.get_key_with_ids(self.master, [name])
        slave.close()


def _note(had: dict[str, bytes], keys: list[DeliveredKey]) -> None:
    for key in keys:
        assert key.key_id not in had, "a key given twice"
        had[key.key_id] = key.key


@pytest.mark.parametrize("cut_s", [1, pytest.param(60, marks=pytest.mark.long)])
def test_k14_the_line_between_two_sites_at_work_is_cut(tmp_path: Path, cut_s: float) -> None:
    """Both serve on meanwhile; no key and no byte is given twice, and afterwards they agree."""
    port = two_free_ports()
    pair = make_linked(tmp_path, 1_000_000, port)
    directions = Traffic("EG-U", "EG-N"), Traffic("EG-N", "EG-U")
    over = threading.Event()
    with lines_between(pair, port) as lines, ThreadPoolExecutor(2) as pool:
        both = start(pair[0]), start(pair[1])
        try:
            work = [
                pool.submit(traffic.run, *sites, over, Random(cut_s))
                for traffic, sites in zip(directions, (both, both[::-1]), strict=True)
            ]
            settle(both)
            missed = [kms.log.count("not reconciled") for kms in both]
            for line in lines:
                line.whole.clear()
            until(
                lambda: all(
                    kms.log.count("not reconciled") > before
                    for kms, before in zip(both, missed, strict=True)
                )
            )
            heard, had = rounds(both), [len(traffic.fetched) for traffic in directions]
            time.sleep(cut_s)
            assert rounds(both) == heard
            given = [
                len(traffic.fetched) - before
                for traffic, before in zip(directions, had, strict=True)
            ]
            assert min(given) > 10 * cut_s
        finally:
            over.set()
            for line in lines:
                line.whole.set()
        for each in work:
            each.result()
        settle(both)
        for traffic, at_slave in zip(directions, both[::-1], strict=True):
            traffic.finish(at_slave, Random(cut_s))
        settle(both)
        for kms in both:
            assert AlarmKind.CORRUPTED not in kms.log
            kms.stop()

    assert left_to_settle(pair) == []
    end = 0
    names = [name for traffic in directions for name in traffic.taken]
    for at in sorted(parse_key_id(name).location.offset_bytes for name in names):
        assert at >= end, "two keys overlap"
        end = at + 32
    for folder, mine, theirs in zip(pair, directions, directions[::-1], strict=True):
        with Ledger(folder / "ledger.sqlite", (folder / "ledger.secret").read_bytes()) as ledger:
            spent = ledger.consumption()
        assert (spent.taken_keys, spent.fetched_keys) == (len(mine.taken), len(theirs.taken))


def test_k7_a_site_put_back_to_an_old_state_refuses(pair: Pair, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    shutil.copytree(pair[0], backup)
    both = start(pair[0]), start(pair[1])
    fetched(both[1], "EG-N", "EG-U", taken(both[0], "EG-U", "EG-N", 8))
    until(lambda: "reconciled:" in both[0].log)
    both[0].stop()
    shutil.rmtree(pair[0])
    shutil.copytree(backup, pair[0])

    again = start(pair[0])
    with pytest.raises(KmsRefused, match="503"):
        taken(again, "EG-U", "EG-N", 1)  # from the first request on
    assert "rolled back" in again.log
    again.stop()
    both[1].stop()


def test_k7_keys_given_since_the_last_summary_are_not_given_again(
    pair: Pair, tmp_path: Path
) -> None:
    """Killed soon after its keys, and put back to what it was before them; no summary in between."""
    for site in pair:
        change_peer(site, reconcile_every_s=300)
    backup = tmp_path / "backup"
    shutil.copytree(pair[0], backup)
    at_n, at_u = start(pair[1]), start(pair[0])  # U meets N before it serves
    taken(at_u, "EG-U", "EG-N", 8)
    until(lambda: "KME-U POST /qntn/v1/version 200" in at_n.log)
    at_u.process.kill()
    at_u.process.wait()
    shutil.rmtree(pair[0])
    shutil.copytree(backup, pair[0])

    again = start(pair[0])
    with pytest.raises(KmsRefused, match="503"):
        taken(again, "EG-U", "EG-N", 1)
    assert "rolled back: the other site has seen transaction" in again.log
    again.stop()
    at_n.stop()


def test_k7_a_site_that_stops_says_how_far_it_has_come(pair: Pair) -> None:
    for site in pair:
        change_peer(site, reconcile_every_s=300)
    at_n, at_u = start(pair[1]), start(pair[0])  # U meets N before it serves
    taken(at_u, "EG-U", "EG-N", 1)
    until(lambda: "/qntn/v1/version" in at_n.log)
    taken(at_u, "EG-U", "EG-N", 1)  # not a second later: not told yet
    at_u.stop()
    at_n.stop()
    versions = []
    for folder in pair:
        with Ledger(folder / "ledger.sqlite", (folder / "ledger.secret").read_bytes()) as ledger:
            versions.append((ledger.stock.state.version, ledger.stock.state.peer_version))
    assert versions[0][0] == versions[1][1]


def test_k7_a_site_that_is_to_hear_the_other_first_serves_nobody_before(pair: Pair) -> None:
    """Then a roll-back does no harm either while the other site cannot be reached."""
    change_peer(pair[0], hear_first=True)
    at_u = start(pair[0])
    for _ in range(2):
        with pytest.raises(KmsRefused, match="503"):
            taken(at_u, "EG-U", "EG-N", 1)
    at_n = start(pair[1])
    fetched(at_n, "EG-N", "EG-U", taken(at_u, "EG-U", "EG-N", 3))
    for kms in (at_u, at_n):
        kms.stop()


def test_ledgers_too_long_to_be_compared_are_an_alarm(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_u, at_n = (KmsConfiguration.load(folder / CONFIGURATION) for folder in pair)
    assert at_u.peer is not None
    with Ledger(at_n.ledger_path, at_n.ledger_secret()) as ledger:
        theirs = summarise(ledger).model_dump_json().encode()
    with Ledger(at_u.ledger_path, at_u.ledger_secret()) as ledger:
        kme = Kme.start(ledger, at_u, utc_now())
        peer = Peer(kme, at_u.peer, SteadyClock(utc_now))
        peer.hear(theirs)
        monkeypatch.setattr("kms.peer.MAX_SUMMARY_BYTES", 100)
        with pytest.raises(ProtocolError, match=r"a summary of \d+ bytes is over 100"):
            peer.hear(theirs)
        assert kme.alarms.counts[AlarmKind.UNSETTLED] == 1


def test_only_the_peer_may_reconcile(pair: Pair) -> None:
    """Neither SAEs of this site, nor anybody of the other site but its KME; and a KME is no SAE."""
    kms = start(pair[0])
    cases = (
        (pair[0] / "sae-EG-U", 400),
        (pair[0] / "peer", 400),
        (pair[1] / "sae-EG-N", 400),
        (pair[1] / "peer", 200),
    )
    with Ledger(pair[1] / "ledger.sqlite", (pair[1] / "ledger.secret").read_bytes()) as ledger:
        summary = json.loads(summarise(ledger).model_dump_json())
    for files, expected in cases:
        client = Kms014Client(
            kms.url,
            pair[0] / "ca.pem",
            files.with_suffix(".pem"),
            files.with_suffix(".key"),
            kme_id="KME-U",
            timeout_s=TIMEOUT_S,
        )
        try:
            client._call("POST", "/qntn/v1/summary", summary)
            code = 200
        except KmsRefused as refused:
            code = refused.status
        assert code == expected, files
        if files.parent == pair[1] or files.name == "peer":
            with pytest.raises(KmsRefused, match="401"):
                client.get_key("EG-N")
        client.close()
    kms.stop()


def test_k13_a_running_site_that_is_empty_serves_again_after_the_next_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_pair(tmp_path, 200, two_free_ports(), 0, datetime.now(UTC))
    both = [start(path.parent) for path in paths]
    client = both[0].client("EG-U")
    client.get_key("EG-N", client.status("EG-N").stored_key_count)
    with pytest.raises(KmsRefused, match="503: not enough keys"):
        client.get_key("EG-N")
    assert client.status("EG-N").stored_key_count == 0

    (tmp_path / "key").write_bytes(bytes(range(256)) * 5)
    for path in paths:
        said = qntn(monkeypatch, "kms", "load", path.parent, 2, tmp_path / "key")
        assert said == 0
    assert qntn(monkeypatch, "kms", "load", paths[0].parent, 2, tmp_path / "key") == 1  # once
    fetched(both[1], "EG-N", "EG-U", taken(both[0], "EG-U", "EG-N", 10))

    alike = {"number": 3, "label": "", "material": base64.b64encode(bytes(300)).decode()}
    own = Kms014Client(
        both[0].url,
        both[0].folder / "ca.pem",
        both[0].folder / "peer.pem",
        both[0].folder / "peer.key",
        kme_id="KME-U",
        timeout_s=TIMEOUT_S,
    )
    with pytest.raises(KmsRefused, match="400: block 3 fails its health test"):  # K16
        own._call("POST", "/qntn/v1/blocks", alike)
    own.close()
    assert "unhealthy-key at KME-U: block 3: repetition count" in both[0].log
    (tmp_path / "zeros").write_bytes(bytes(300))
    assert qntn(monkeypatch, "kms", "load", paths[0].parent, 4, tmp_path / "zeros") == 1
    assert "unhealthy-key at KME-U: block 4: repetition count" in both[0].log

    stranger = Kms014Client(
        both[0].url, *both[0].files("EG-U"), kme_id="KME-U", timeout_s=TIMEOUT_S
    )
    with pytest.raises(KmsRefused, match="refused"):
        stranger._call("POST", "/qntn/v1/blocks", {"number": 9, "label": "", "material": "AAAA"})
    for each in (client, stranger):
        each.close()
    for kms in both:
        kms.stop()


def qntn(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of one command."""
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["qntn", *map(str, arguments)])
    with pytest.raises(SystemExit) as exited:
        cli.main()
        sys.exit(0)
    return int(exited.value.code or 0)
