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
has. A late or replayed one is recognised by its version and refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Self

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kms.blocks import Block
from kms.key_id import MAX_BLOCK_NUMBER
from kms.ledger import Ledger
from kms.ledger_store import Site
from kms.messages import Base64
from kms.ranges import RangeMap, RangeState, Run
from kms.stock import Stock
from topo.errors import ProtocolError

_Head = tuple[Site, int, int]
_FREE, _RESERVED = RangeState.FREE, RangeState.RESERVED
_DELIVERED, _DESTROYED = RangeState.DELIVERED, RangeState.DESTROYED


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class BlockStatement(_Message):
    """The states of one block at one site. `tag` authenticates it and the summary's head."""

    number: int = Field(ge=0, le=MAX_BLOCK_NUMBER)
    length: int = Field(ge=1)
    digest: Base64
    own: tuple[tuple[int, RangeState], ...]
    """The half of the sender's masters: where each run begins, and its state."""
    peer: tuple[tuple[int, RangeState], ...]
    tag: Base64


class Summary(_Message):
    """What one site tells the other. JSON by `model_dump_json`; no secret is in it."""

    site: Site
    version: int = Field(ge=0)
    """The sender's latest transaction."""
    seen_version: int = Field(ge=0)
    """The receiver's latest transaction that the sender has reconciled with."""
    blocks: tuple[BlockStatement, ...]

    @classmethod
    def parse(cls, text: bytes | str) -> Self:
        """A summary out of JSON; `ProtocolError` if it is none. Its truth shows in `reconcile`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "body"
            raise ProtocolError(f"not a summary of a ledger: {where}: {first['msg']}") from error


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


@dataclass
class _Changes:
    runs: list[tuple[Block, Run]] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    genuine: bool = False
    """Whether any statement authenticates: then the summary's head is the other site's too."""
    distrust: str = ""

    def bytes_to(self, state: RangeState) -> int:
        return sum(run.stop - run.start for _, run in self.runs if run.state is state)


def summarise(ledger: Ledger) -> Summary:
    """This site's statement of now."""
    stock = ledger.stock
    with stock.lock:
        head = (ledger.site, stock.state.version, stock.state.peer_version)
        blocks = [_state_block(stock.blocks[number], head) for number in sorted(stock.blocks)]
    return Summary(site=head[0], version=head[1], seen_version=head[2], blocks=tuple(blocks))


def reconcile(ledger: Ledger, summary: Summary, now: datetime) -> Reconciliation:
    """Bring the ledger in line with what the other site states, in one transaction.

    A statement that does not authenticate changes nothing and is an alarm. `ProtocolError` if the
    summary is this site's own, or older than one that came before: then it is a replay, or the other
    site was rolled back (which it learns from our summary).
    """
    stock = ledger.stock
    if summary.site == ledger.site:
        raise ProtocolError(f"a summary of site {summary.site}, which is this one")
    with stock.lock:
        state = stock.state
        if summary.version < state.peer_version:
            raise ProtocolError(
                f"the summary is of transaction {summary.version}, one of {state.peer_version} has"
                " been seen: a replay, or the other site was rolled back"
            )
        changes = _collect(stock, summary)
        stated = {statement.number for statement in summary.blocks}
        result = Reconciliation(
            changes.bytes_to(_RESERVED),
            changes.bytes_to(_DESTROYED),
            tuple(sorted(stock.blocks.keys() - stated)),
            tuple(sorted(stated - stock.blocks.keys())),
            tuple(changes.alarms),
        )
        with stock.transaction():
            if changes.genuine:
                state.peer_version = summary.version
                state.own_version_seen = max(state.own_version_seen, summary.seen_version)
                state.distrust = state.distrust or changes.distrust
                stock.keep_state()
            for block, run in changes.runs:
                stock.assign(block, *run)
            if changes.runs or changes.alarms:
                stock.audit(
                    now,
                    "reconcile",
                    reserved_bytes=result.reserved_bytes,
                    destroyed_bytes=result.destroyed_bytes,
                    alarms=changes.alarms,
                )
        ledger.peer_heard = ledger.peer_heard or changes.genuine
    return result


def _collect(stock: Stock, summary: Summary) -> _Changes:
    """What is to change here; nothing has been changed yet."""
    changes = _Changes()
    head = (summary.site, summary.version, summary.seen_version)
    for statement in summary.blocks:
        number = statement.number
        block = stock.blocks.get(number)
        if block is None:
            continue
        if not constant_time.bytes_eq(_tag(block, head, statement), statement.tag):
            changes.alarms.append(f"block {number}: the other site's statement is not authentic")
            continue
        changes.genuine = True
        if (statement.length, statement.digest) != (block.length, block.digest):
            changes.alarms.append(f"block {number}: the two sites hold different bytes")
            changes.runs += [(block, run) for run in _all_destroyed(block)]
        else:
            _compare(block, block.own, statement.peer, _as_master, changes)
            _compare(block, block.peer, statement.own, _as_slave, changes)
    if changes.genuine and summary.seen_version > stock.state.version:
        changes.distrust = (
            f"rolled back: the other site has seen transaction {summary.seen_version}, the latest"
            f" here is {stock.state.version}"
        )
    if changes.distrust:
        changes.alarms.append(changes.distrust)
    return changes


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
        for master, slave in ((one.own, other.peer), (other.own, one.peer)):
            lines += [
                f"block {number}, from byte {start}: {pair[0]} and {pair[1]}"
                for start, _, *pair in _overlay(master, slave, one.length)
                if tuple(pair) not in settled
            ]
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


_Starts = Sequence[tuple[int, RangeState]]
_Rule = Callable[[RangeState, RangeState], tuple[RangeState, bool]]


def _compare(block: Block, half: RangeMap, theirs: _Starts, rule: _Rule, into: _Changes) -> None:
    """Collect where a half is to change."""
    starts = [start for start, _ in theirs]
    if starts[:1] != [half.span.start] or any(a >= b for a, b in pairwise(starts)):
        into.alarms.append(f"block {block.number}: the other site's statement makes no sense")
        return
    ours = [(run.start, run.state) for run in half.runs()]
    for start, stop, mine, other in _overlay(ours, theirs, half.span.stop):
        then, forgotten = rule(mine, other)
        if forgotten:
            into.distrust = "rolled back: the other site has keys that were never given out here"
        if then is not mine:
            into.runs.append((block, Run(start, stop, then)))


def _overlay(
    ours: _Starts, theirs: _Starts, end: int
) -> Iterator[tuple[int, int, RangeState, RangeState]]:
    """The pieces in which two lists of runs over the same span are constant."""
    one, other = dict(ours), dict(theirs)
    starts = sorted(start for start in one.keys() | other.keys() if start < end)
    mine = their = _FREE
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        mine, their = one.get(start, mine), other.get(start, their)
        yield start, stop, mine, their


def _all_destroyed(block: Block) -> list[Run]:
    return [
        Run(run.start, run.stop, _DESTROYED)
        for half in (block.own, block.peer)
        for run in half.runs()
        if run.state is not _DESTROYED
    ]


def _state_block(block: Block, head: _Head) -> BlockStatement:
    own, peer = (
        tuple((run.start, run.state) for run in half.runs()) for half in (block.own, block.peer)
    )
    statement = BlockStatement(
        number=block.number, length=block.length, digest=block.digest, own=own, peer=peer, tag=b""
    )
    return statement.model_copy(update={"tag": _tag(block, head, statement)})


def _tag(block: Block, head: _Head, statement: BlockStatement) -> bytes:
    halves = [[(at, state.value) for at, state in half] for half in (statement.own, statement.peer)]
    content = (head, statement.number, statement.length, statement.digest, halves)
    mac = HMAC(block.keys.reconciling, SHA256())
    mac.update(f"statement{content!r}".encode())
    return mac.finalize()
