"""The other site's KME: two ledgers tell each other how they stand, over HTTPS with mutual TLS.

Delivering keys needs no word from the other site. Only after a partition, a crash or a roll-back is
something to be settled (`kms.reconcile`): each KME sends its ledger's summary to the other one before
it serves and every `reconcile_every_s`, gets the other's in the answer, and both act on them. While
it delivers keys it tells the other one its version too, at once and then every `_ANNOUNCE_EVERY_S`,
and when it stops; no request waits for that. So a site that was put back to an old state gives out
nothing if the other one can be reached; with `hear_first`, nor if it cannot. What escapes is a state
of which the other site has not heard: of the last second before a crash, or of a partition.

The messages authenticate themselves; TLS keeps strangers from asking. Each site trusts the other's
authority for this alone: a certificate of the other site's authority makes nobody an SAE here, and
one of our own makes nobody a KME.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kms.alarms import AlarmKind
from kms.client import Kms014Client
from kms.configuration import PeerConfiguration
from kms.kme import Kme
from kms.reconcile import Announcement, Reconciling, Summary, announce, heed, summarise
from kms.revocation import load_authorities
from kms.steady_clock import SteadyClock
from topo.errors import KeySupplyError, ProtocolError

PATH = "/qntn/v1/summary"
VERSION_PATH = "/qntn/v1/version"
MAX_SUMMARY_BYTES = 16 << 20
"""Enough for some two million runs, that is keys under way at once."""
_ANNOUNCE_EVERY_S = 1.0
_LOG = logging.getLogger("kms.server")
_TIMEOUT_S = 4.0
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0


class _Client(Kms014Client):
    """The same HTTPS, the same check of the KME's identity; another path."""

    def exchange(self, summary: str) -> Summary:
        return Summary.parse(json.dumps(self._call("POST", PATH, json.loads(summary))))

    def announce(self, announcement: Announcement) -> None:
        self._call("POST", VERSION_PATH, announcement.model_dump(mode="json"))


_Result = TypeVar("_Result")


class Peer:
    """The other site, as seen from a running KME."""

    def __init__(self, kme: Kme, configuration: PeerConfiguration, now: SteadyClock) -> None:
        self.authorities = load_authorities(configuration.ca_path)
        self._kme, self._now = kme, now
        self._every_s = configuration.reconcile_every_s
        self._client = _Client(
            configuration.url,
            configuration.ca_path,
            configuration.certificate_path,
            configuration.key_path,
            kme_id=kme.configuration.peer_kme_id,
            timeout_s=_TIMEOUT_S,
        )
        self._line = ThreadPoolExecutor(1, "peer")  # one message after the other
        self._settling = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()
        self._used = asyncio.Event()  # keys have been given that the other site has not heard of
        self._common_block: int | None = None

    def used(self) -> None:
        """Keys have been delivered: the other site is to hear soon how far the ledger has come."""
        self._used.set()

    async def keep_in_touch(self, met: bool) -> None:
        """Exchange summaries, now and then; a peer that was not there is soon tried again."""
        retry_s = _FIRST_RETRY_S
        while True:
            if met:
                met = await self._announce_for(self._every_s)
                retry_s = _FIRST_RETRY_S
            if not met:
                await asyncio.sleep(min(self._every_s, retry_s))
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
            met = await self.meet()

    async def meet(self) -> bool:
        """Exchange summaries once; whether the peer was there."""
        unsaid = self._used.is_set()
        self._used.clear()
        try:
            theirs = await self._call(self._client.exchange, self._summary())
            await self._settle(Reconciling(self._kme.ledger, theirs, self._now()))
        except (KeySupplyError, ProtocolError) as error:
            if unsaid:
                self._used.set()
            _LOG.warning("not reconciled: %s", error)
            return False
        return True

    def hear(self, body: bytes) -> str:
        """Act on a summary that the other site has sent; ours in answer, as JSON.

        Also to one that is too old to act on: ours tells a site that was rolled back what it is. If
        there is much to do it is done after the answer.
        """
        summary = Summary.parse(body)
        try:
            work = Reconciling(self._kme.ledger, summary, self._now())
            if not self._settling.locked() and not work.step():
                self._note(work)
            else:
                task = asyncio.create_task(self._settle_later(work))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
        except ProtocolError as error:
            _LOG.warning("not reconciled: %s", error)
        return self._summary()

    def heed(self, body: bytes) -> None:
        """Remember the version that the other site says its ledger is at."""
        heed(self._kme.ledger, Announcement.parse(body))

    async def close(self) -> None:
        """Say the last word, if there is one; nothing else is under way afterwards."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._used.is_set():
            await self._announce()
        self._line.shutdown()
        self._client.close()

    async def _announce_for(self, seconds: float) -> bool:
        """Tell the other site of what is used, for so long; False if it does not take it."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while (left_s := end_s - loop.time()) > 0:
            try:
                await asyncio.wait_for(self._used.wait(), left_s)
            except TimeoutError:
                break
            if not await self._announce():
                return False
            await asyncio.sleep(min(_ANNOUNCE_EVERY_S, max(0, end_s - loop.time())))
        return True

    async def _announce(self) -> bool:
        """Tell the other site our version, if a block is known to be at both."""
        if self._common_block is None:
            return True
        self._used.clear()
        try:
            said = announce(self._kme.ledger, self._common_block)
            await self._call(self._client.announce, said)
        except KeySupplyError as error:
            self._used.set()
            _LOG.warning("version not announced: %s", error)
            return False
        return True

    async def _call(self, send: Callable[..., _Result], *what: object) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._line, send, *what)

    def _summary(self) -> str:
        text = summarise(self._kme.ledger).model_dump_json()
        if len(text) > MAX_SUMMARY_BYTES:
            why = f"a summary of {len(text)} bytes is over {MAX_SUMMARY_BYTES}"
            self._alarm(AlarmKind.UNSETTLED, why)
            raise ProtocolError(why)
        return text

    async def _settle(self, work: Reconciling) -> None:
        """Do it all; requests take turns with its steps."""
        async with self._settling:
            while work.step():
                await asyncio.sleep(0)
        self._note(work)

    async def _settle_later(self, work: Reconciling) -> None:
        try:
            await self._settle(work)
        except KeySupplyError as error:
            _LOG.warning("not reconciled: %s", error)

    def _note(self, work: Reconciling) -> None:
        """What a summary has brought."""
        found = work.result
        for alarm in found.alarms:
            self._alarm(AlarmKind.CORRUPTED, alarm)
        if found.reserved_bytes or found.destroyed_bytes:
            _LOG.info(
                "reconciled: %d bytes reserved, %d destroyed",
                found.reserved_bytes,
                found.destroyed_bytes,
            )
        if work.common_block is not None:
            self._common_block = work.common_block

    def _alarm(self, kind: AlarmKind, detail: str) -> None:
        self._kme.alarms.sound(kind, self._kme.configuration.peer_kme_id, detail, self._now())
