"""The other site's KME: two ledgers tell each other how they stand, over HTTPS with mutual TLS.

Delivering keys needs no word from the other site. Only after a partition, a crash or a roll-back is
something to be settled (`kms.reconcile`): each KME sends its ledger's summary to the other one before
it serves and every `reconcile_every_s`, gets the other's in the answer, and both act on them. So a
site that was put back to an old state gives out nothing if the other one can be reached; with
`hear_first`, nor if it cannot. The summaries authenticate themselves; TLS keeps strangers from
asking. Each site trusts the other's authority for this alone: a certificate of the other site's
authority makes nobody an SAE here, and one of our own makes nobody a KME.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from kms.alarms import AlarmKind
from kms.client import Kms014Client
from kms.configuration import PeerConfiguration
from kms.kme import Kme
from kms.reconcile import Reconciliation, Summary, reconcile, summarise
from kms.revocation import load_authorities
from kms.steady_clock import SteadyClock
from topo.errors import KeySupplyError, ProtocolError

PATH = "/qntn/v1/summary"
MAX_SUMMARY_BYTES = 16 << 20
_LOG = logging.getLogger("kms.server")
_TIMEOUT_S = 4.0
_FIRST_RETRY_S, _LAST_RETRY_S = 1.0, 60.0


class _Client(Kms014Client):
    """The same HTTPS, the same check of the KME's identity; another path."""

    def exchange(self, summary: dict[str, Any]) -> dict[str, Any]:
        return self._call("POST", PATH, summary)


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

    async def keep_in_touch(self, met: bool) -> None:
        """Exchange summaries, now and then; a peer that was not there is soon tried again."""
        retry_s = _FIRST_RETRY_S
        while True:
            await asyncio.sleep(self._every_s if met else min(self._every_s, retry_s))
            retry_s = _FIRST_RETRY_S if met else min(2 * retry_s, _LAST_RETRY_S)
            met = await self.meet()

    async def meet(self) -> bool:
        """Exchange summaries once; whether the peer was there."""
        try:
            ours = json.loads(summarise(self._kme.ledger).model_dump_json())
            theirs = await asyncio.to_thread(self._client.exchange, ours)
            self._act_on(Summary.parse(json.dumps(theirs)))
        except (KeySupplyError, ProtocolError) as error:
            _LOG.warning("not reconciled: %s", error)
            return False
        return True

    def hear(self, body: bytes) -> str:
        """Act on a summary that the other site has sent; ours in answer, as JSON.

        Also to one that is too old to act on: ours tells a site that was rolled back what it is.
        """
        summary = Summary.parse(body)
        try:
            self._act_on(summary)
        except ProtocolError as error:
            _LOG.warning("not reconciled: %s", error)
        return summarise(self._kme.ledger).model_dump_json()

    def close(self) -> None:
        self._client.close()

    def _act_on(self, summary: Summary) -> Reconciliation:
        found = reconcile(self._kme.ledger, summary, self._now())
        for alarm in found.alarms:
            site = self._kme.configuration.peer_kme_id
            self._kme.alarms.sound(AlarmKind.CORRUPTED, site, alarm, self._now())
        if found.reserved_bytes or found.destroyed_bytes:
            _LOG.info(
                "reconciled: %d bytes reserved, %d destroyed",
                found.reserved_bytes,
                found.destroyed_bytes,
            )
        return found
