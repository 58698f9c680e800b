"""Rate limits of SAEs: the token bucket on its own, and what a KME at its limit answers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from kms.api import get_key, get_status
from kms.limits import Allowance, Rate, SaeLimits
from tests.etsi_014 import NOW, get, make_site

RATE = Rate(per_s=2, burst=10)


def test_a_burst_and_then_the_rate() -> None:
    allowance = Allowance(RATE)
    for _ in range(10):
        assert allowance.wait_s("a", 1, NOW) == 0
        allowance.spend("a", 1, NOW)
    assert allowance.wait_s("a", 1, NOW) == pytest.approx(0.5)
    assert allowance.wait_s("b", 1, NOW) == 0
    assert allowance.wait_s("a", 1, NOW + timedelta(seconds=0.5)) == 0


def test_long_run_rate() -> None:
    """Asking all the time for an hour yields the burst and the rate, no more."""
    allowance, spent = Allowance(RATE), 0
    for tenth in range(36_000):
        now = NOW + timedelta(seconds=tenth / 10)
        if allowance.wait_s("a", 1, now) == 0:
            allowance.spend("a", 1, now)
            spent += 1
    assert spent == pytest.approx(10 + 2 * 3600, abs=1)


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
def test_k18_a_clock_jump_neither_frees_nor_locks_out(jump: timedelta) -> None:
    allowance = Allowance(RATE)
    allowance.spend("a", 10, NOW)
    now = NOW + jump
    free = jump > timedelta(0)
    assert allowance.wait_s("a", 1, now) == (0 if free else pytest.approx(0.5))
    allowance.spend("a", 10 if free else 0, now)
    assert allowance.wait_s("a", 10, now) == pytest.approx(5)
    assert allowance.wait_s("a", 10, now + timedelta(seconds=5)) == 0


def test_no_rate_is_no_limit() -> None:
    allowance = Allowance(None)
    allowance.spend("a", 1e12, NOW)
    assert allowance.wait_s("a", 1e12, NOW) == 0
    assert not allowance.never(1e99)


@pytest.mark.parametrize("bad", [{"per_s": 0, "burst": 1}, {"per_s": 1, "burst": 0}, {"per_s": 1}])
def test_rates_that_cannot_be(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Rate.model_validate(bad)


def test_requests_over_the_limit_are_503_and_charge_nobody_else(tmp_path: Path) -> None:
    limits = SaeLimits(requests=Rate(per_s=1, burst=3))
    site = make_site(tmp_path, "U", sae_limits=limits)
    assert [site.call(get_status, "EG-U", get("EG-N"))[0] for _ in range(3)] == [200] * 3
    before = site.ledger.counts()
    code, body = site.call(get_key, "EG-U", get("EG-N"))
    assert (code, body["message"]) == (503, "requests rate limit of this SAE reached")
    assert body["details"] == [{"qntn_retry_after_s": 1.0}]
    assert site.ledger.counts() == before
    assert site.call(get_key, "EH-U", get("EH-N"))[0] == 200
    assert site.at(NOW + timedelta(seconds=1)).call(get_key, "EG-U", get("EG-N"))[0] == 200


def test_key_bits_over_the_limit(tmp_path: Path) -> None:
    limits = SaeLimits(key_bits=Rate(per_s=256, burst=1024))
    site = make_site(tmp_path, "U", sae_limits=limits)
    assert site.call(get_key, "EG-U", get("EG-N", number=3))[0] == 200
    before = site.ledger.counts()
    code, body = site.call(get_key, "EG-U", get("EG-N", number=2))
    assert (code, body["details"]) == (503, [{"qntn_retry_after_s": 1.0}])
    assert site.call(get_key, "EG-U", get("EG-N", number=5))[0] == 400  # more than a burst: never
    assert site.ledger.counts() == before
    assert site.call(get_status, "EG-U", get("EG-N"))[0] == 200
    later = site.at(NOW + timedelta(seconds=1))
    assert later.call(get_key, "EG-U", get("EG-N", number=2))[0] == 200


def test_a_refused_request_is_charged_no_key(tmp_path: Path) -> None:
    site = make_site(tmp_path, "U", sae_limits=SaeLimits(key_bits=Rate(per_s=1, burst=256)))
    for _ in range(5):
        assert site.call(get_key, "EG-U", get("EG-N", size=255))[0] == 400
    assert site.call(get_key, "EG-U", get("EG-N"))[0] == 200


def test_low_water_alarm_sounds_once_for_each_crossing(tmp_path: Path) -> None:
    from kms.alarms import AlarmKind

    site = make_site(tmp_path, "U", low_water_bits=30_000)
    codes = [site.call(get_key, "EG-U", get("EG-N", number=16))[0] for _ in range(5)]
    assert codes == [200] * 5
    assert site.kme.alarms.counts[AlarmKind.LOW_WATER] == 1
    assert site.call(get_status, "EG-U", get("EG-N"))[1]["status_extension"]["qntn_low_water"]
    site.ledger.add_block(2, bytes(range(255, -1, -1)) * 40, "next pass", NOW)
    for _ in range(12):
        site.call(get_key, "EG-U", get("EG-N", number=16))
    assert site.kme.alarms.counts[AlarmKind.LOW_WATER] == 2
