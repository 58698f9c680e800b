"""What two sites tell each other about their ledgers, and how they come to agree again.

No message is needed to deliver keys, so after a partition or a crash the sites differ only in what
one knows of the other. Each states, for every block, the runs of states of both halves (`summarise`);
each brings its own ledger in line with the other's statement (`reconcile`). States only advance, so
this can be done at any time, in any order, any number of times; statements may be lost or be late.
Two rounds without traffic between them and the sites agree (`disagreements` is empty).

In the half whose masters are at site A, with slaves at site B::

    A          B          then
    FREE       FREE       –
    DELIVERED  FREE       B: RESERVED, it may be fetched
    DELIVERED  DELIVERED  both: DESTROYED, settled
    DESTROYED  any        B: DESTROYED, what it still has is erased
    any        DESTROYED  A: DESTROYED
    FREE       RESERVED or DELIVERED
                          B has seen a key that A knows nothing of: A's ledger was put back to an
                          earlier state. A erases the bytes and refuses to serve

The last line finds a roll-back of all of a site's files together; so does a statement that has seen
a later version of the ledger than the ledger itself.

Statements are authenticated block by block under a key derived from the block, which nobody else
has. A late or replayed one is recognised by its version and refused. A summary takes some seven bytes
for each run, and is acted on in steps of bounded work (`Reconciling`), so that a site with many keys
under way goes on serving meanwhile.

Between summaries, soon after it has given keys, each site tells the other its version alone
(`announce`, `heed`): so what has been given since the last summary does not escape the other either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Self

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kms.blocks import Block, halves
from kms.key_id import MAX_BLOCK_NUMBER
from kms.ledger import Ledger
from kms.ledger_store import Site
from kms.messages import Base64
from kms.ranges import RangeState, Runs
from topo.errors import ProtocolError

_Head = tuple[Site, int, int]
_FREE, _RESERVED = RangeState.FREE, RangeState.RESERVED
_DELIVERED, _DESTROYED = RangeState.DELIVERED, RangeState.DESTROYED
_STEP_COST, _CHANGE_COST = 4000, 20
"""Looking at a piece of a half costs 1, changing it so much more; a whole step is some 10 ms."""


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    what: ClassVar[str]

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """The message out of JSON; `ProtocolError` if it is none. Its truth shows when it is acted on."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            raise ProtocolError(f"not {cls.what}: {where}: {first['msg']}") from error


class BlockStatement(_Message):
    """The states of one block at one site. `tag` authenticates it and the summary's head."""

    what = "a statement"

    number: int = Field(ge=0, le=MAX_BLOCK_NUMBER)
    length: int = Field(ge=1)
    digest: Base64
    own: Base64
    """The half of the sender's masters, as `Runs.pack` writes it."""
    peer: Base64
    tag: Base64

    def runs(self, site: Site) -> tuple[Runs, Runs]:
        """Both halves as `site` has stated them, its own first; `ValueError` if they make no sense."""
        own, peer = halves(site, self.length)
        return Runs.unpack(own, self.own), Runs.unpack(peer, self.peer)


class Summary(_Message):
    """What one site tells the other. JSON by `model_dump_json`; no secret is in it."""

    what = "a summary of a ledger"

    site: Site
    version: int = Field(ge=0)
    """The sender's latest transaction."""
    seen_version: int = Field(ge=0)
    """The receiver's latest transaction that the sender has heard of."""
    blocks: tuple[BlockStatement, ...]


class Announcement(_Message):
    """The sender's latest transaction, under the key of block `number`, which both sites have."""

    what = "an announcement"

    site: Site
    version: int = Field(ge=0)
    number: int = Field(ge=0, le=MAX_BLOCK_NUMBER)
    tag: Base64


@dataclass(frozen=True)
class Reconciliation:
    """What a summary has changed here, in bytes; and what somebody should look at."""

    reserved_bytes: int = 0
    """Learned to be with the other site's masters."""
    destroyed_bytes: int = 0
    """Settled, or erased because the other site has destroyed them."""
    only_here: tuple[int, ...] = ()
    """Blocks the other site has not stated: not arrived there, or not yet."""
    only_there: tuple[int, ...] = ()
    alarms: tuple[str, ...] = ()


def summarise(ledger: Ledger) -> Summary:
    """This site's statement of now."""
    stock = ledger.stock
    with stock.lock:
        head = (ledger.site, stock.state.version, stock.state.peer_version)
        blocks = [_state_block(stock.blocks[number], head) for number in sorted(stock.blocks)]
    return Summary(site=head[0], version=head[1], seen_version=head[2], blocks=tuple(blocks))


def reconcile(ledger: Ledger, summary: Summary, now: datetime) -> Reconciliation:
    """Bring the ledger in line with what the other site states.

    A statement that does not authenticate changes nothing and is an alarm. `ProtocolError` if the
    summary is this site's own, or older than one that came before: then it is a replay, or the other
    site was rolled back (which it learns from our summary).
    """
    with ledger.stock.lock:
        work = Reconciling(ledger, summary, now)
        while work.step():
            pass
    return work.result


class Reconciling:
    """One summary on its way into a ledger, in steps. Between them the ledger can be used.

    Make it and do its steps in one thread, or under the stock's lock. Raises what `reconcile` does;
    after an error of a step the rest is not to be done: the next summary will say it again.
    """

    def __init__(self, ledger: Ledger, summary: Summary, now: datetime) -> None:
        self._ledger, self._summary, self._now = ledger, summary, now
        if summary.site == ledger.site:
            raise ProtocolError(f"a summary of site {summary.site}, which is this one")
        if summary.version < ledger.summary_version:
            raise ProtocolError(
                f"the summary is of transaction {summary.version}, one of {ledger.summary_version}"
                " has been seen: a replay, or the other site was rolled back"
            )
        self._cost = 0
        self._changed: Counter[RangeState] = Counter()  # bytes, in all steps
        self._alarms: list[str] = []
        self._audited = 0  # of the alarms
        self._distrusts = False
        blocks = ledger.stock.blocks
        head = (summary.site, summary.version, summary.seen_version)
        self._authentic: list[BlockStatement] = []
        for statement in summary.blocks:
            if (block := blocks.get(statement.number)) is None:
                continue
            if constant_time.bytes_eq(_tag(block, head, statement), statement.tag):
                self._authentic.append(statement)
            else:
                what = "the other site's statement is not authentic"
                self._alarms.append(f"block {statement.number}: {what}")
        stated = {statement.number for statement in summary.blocks}
        self._only_here = tuple(sorted(blocks.keys() - stated))
        self._only_there = tuple(sorted(stated - blocks.keys()))
        self._work = self._work_through()

    @property
    def common_block(self) -> int | None:
        """A block that both sites have."""
        return max((statement.number for statement in self._authentic), default=None)

    @property
    def result(self) -> Reconciliation:
        """What has been done so far."""
        return Reconciliation(
            self._changed[_RESERVED],
            self._changed[_DESTROYED],
            self._only_here,
            self._only_there,
            tuple(self._alarms),
        )

    def step(self) -> bool:
        """Do a part of it, in one transaction; whether there is more to do."""
        ledger, before = self._ledger, self._changed.copy()
        self._cost = 0
        with ledger.stock.transaction():
            more = next(self._work, False)
            changed = self._changed - before
            if changed or self._alarms[self._audited :]:
                ledger.stock.audit(
                    self._now,
                    "reconcile",
                    reserved_bytes=changed[_RESERVED],
                    destroyed_bytes=changed[_DESTROYED],
                    alarms=self._alarms[self._audited :],
                )
                self._audited = len(self._alarms)
        if self._authentic:  # then the summary's head is the other site's too
            ledger.summary_version = max(ledger.summary_version, self._summary.version)
            ledger.peer_heard = ledger.peer_heard or not more
        return more

    def _work_through(self) -> Iterator[bool]:
        """Changes the ledger, inside the transaction of whoever asks for the next element."""
        summary, stock = self._summary, self._ledger.stock
        if self._authentic:
            state = stock.state
            state.peer_version = max(state.peer_version, summary.version)
            state.own_version_seen = max(state.own_version_seen, summary.seen_version)
            if summary.seen_version > state.version:
                self._distrust(
                    f"rolled back: the other site has seen transaction {summary.seen_version}, the"
                    f" latest here is {state.version}"
                )
            stock.keep_state()
        for statement in self._authentic:
            block = stock.blocks[statement.number]
            own, peer = halves(summary.site, block.length)
            if (statement.length, statement.digest) != (block.length, block.digest):
                self._alarms.append(f"block {block.number}: the two sites hold different bytes")
                theirs = (
                    Runs(own, [own.start], [_DESTROYED]),
                    Runs(peer, [peer.start], [_DESTROYED]),
                )
            else:
                try:
                    theirs = statement.runs(summary.site)
                except ValueError:
                    what = "the other site's statement makes no sense"
                    self._alarms.append(f"block {block.number}: {what}")
                    continue
            yield from self._compare(block.number, theirs[1], _as_master)
            yield from self._compare(block.number, theirs[0], _as_slave)

    def _compare(self, number: int, theirs: Runs, rule: _Rule) -> Iterator[bool]:
        """Go through one half. Whatever was looked at before a `yield` may have changed after it."""
        stock, at = self._ledger.stock, theirs.span.start
        while at < theirs.span.stop:
            block = stock.blocks[number]
            mine, other = block.half_of(at).run_at(at), theirs.run_at(at)
            stop = min(mine.stop, other.stop)
            then, forgotten = rule(mine.state, other.state)
            if forgotten:
                self._distrust(
                    "rolled back: the other site has keys that were never given out here"
                )
            if then is not mine.state:
                stock.assign(block, at, stop, then)
                self._changed[then] += stop - at
                self._cost += _CHANGE_COST
            self._cost += 1
            at = stop
            if self._cost > _STEP_COST:
                yield True

    def _distrust(self, why: str) -> None:
        state = self._ledger.stock.state
        state.distrust = state.distrust or why
        if not self._distrusts:
            self._alarms.append(why)
        self._distrusts = True


def announce(ledger: Ledger, number: int) -> Announcement:
    """That this site is at its transaction of now; `number` is a block that the other has too."""
    stock = ledger.stock
    with stock.lock:
        site, version = ledger.site, stock.state.version
        tag = _announcement_tag(stock.blocks[number], site, version)
    return Announcement(site=site, version=version, number=number, tag=tag)


def heed(ledger: Ledger, announcement: Announcement) -> None:
    """Remember, durably, how far the other site's ledger has come; `ProtocolError` if it has not said so."""
    said, stock = announcement, ledger.stock
    with stock.lock:
        block = stock.blocks.get(said.number)
        if block is None or said.site == ledger.site:
            raise ProtocolError(f"announcement of site {said.site} under block {said.number}")
        if not constant_time.bytes_eq(_announcement_tag(block, said.site, said.version), said.tag):
            raise ProtocolError("the other site's announcement is not authentic")
        if said.version > stock.state.peer_version:
            with stock.transaction():
                stock.state.peer_version = said.version
                stock.keep_state()


def disagreements(first: Summary, second: Summary) -> list[str]:
    """Where two sites have not settled yet, one line each; none when they agree."""
    settled = {(_FREE, _FREE), (_DELIVERED, _RESERVED), (_DESTROYED, _DESTROYED)}
    here, there = ({block.number: block for block in each.blocks} for each in (first, second))
    lines = [f"block {number}: at one site only" for number in sorted(here.keys() ^ there.keys())]
    for number in sorted(here.keys() & there.keys()):
        one, other = here[number], there[number]
        if (one.length, one.digest) != (other.length, other.digest):
            lines.append(f"block {number}: not the same at the two sites")
            continue
        ours, theirs = one.runs(first.site), other.runs(second.site)
        for master, slave in ((ours[0], theirs[1]), (theirs[0], ours[1])):
            at = master.span.start
            while at < master.span.stop:
                given, got = master.run_at(at), slave.run_at(at)
                if (given.state, got.state) not in settled:
                    lines.append(f"block {number}, from byte {at}: {given.state} and {got.state}")
                at = min(given.stop, got.stop)
    return lines


def _as_master(mine: RangeState, theirs: RangeState) -> tuple[RangeState, bool]:
    """In the half of our masters: the state to be, and whether theirs shows that we forgot."""
    if mine is _FREE and theirs in (_RESERVED, _DELIVERED):
        return _DESTROYED, True
    if theirs is _DESTROYED or (mine is _DELIVERED and theirs is _DELIVERED):
        return _DESTROYED, False
    return mine, False


def _as_slave(mine: RangeState, theirs: RangeState) -> tuple[RangeState, bool]:
    """In the half of their masters. Where theirs is behind, the statement was merely on its way."""
    if theirs is _DESTROYED or (mine is _DELIVERED and theirs is _DELIVERED):
        return _DESTROYED, False
    if mine is _FREE and theirs is _DELIVERED:
        return _RESERVED, False
    return mine, False


_Rule = Callable[[RangeState, RangeState], tuple[RangeState, bool]]


def _state_block(block: Block, head: _Head) -> BlockStatement:
    statement = BlockStatement(
        number=block.number,
        length=block.length,
        digest=block.digest,
        own=block.own.pack(),
        peer=block.peer.pack(),
        tag=b"",
    )
    return statement.model_copy(update={"tag": _tag(block, head, statement)})


def _tag(block: Block, head: _Head, statement: BlockStatement) -> bytes:
    said = statement
    content = (head, said.number, said.length, said.digest, len(said.own), len(said.peer))
    mac = HMAC(block.keys.reconciling, SHA256())
    mac.update(f"statement{content!r}".encode())
    mac.update(said.own)
    mac.update(said.peer)
    return mac.finalize()


def _announcement_tag(block: Block, site: Site, version: int) -> bytes:
    mac = HMAC(block.keys.reconciling, SHA256())
    mac.update(f"announcement{(site, version, block.number)!r}".encode())
    return mac.finalize()
