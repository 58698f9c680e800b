"""Light of the sky against worked examples."""

from __future__ import annotations

from typing import Any

import pytest

from quantum.background import (
    SKY_RADIANCE_W_M2_SR_UM,
    daylight_radiance,
    photon_rate_hz,
    sky_radiance,
)
from topo.errors import InputError

PORTABLE: dict[str, Any] = {
    "receiver_m": 0.28,
    "field_of_view_urad": 100.0,
    "filter_nm": 5.0,
    "wavelength_nm": 850.0,
}


def test_a_full_moon_over_a_portable_station() -> None:
    """28 cm, 100 urad, 5 nm: 1.5e4 photons a second at the aperture, computed elsewhere."""
    assert float(photon_rate_hz(1.5e-3, **PORTABLE)) == pytest.approx(1.5e4, rel=0.05)


@pytest.mark.parametrize(("receiver_m", "counts_hz"), [(0.75, 8.1e3), (1.3, 24.4e3), (2.3, 76.4e3)])
def test_a_full_moon_over_three_telescopes(receiver_m: float, counts_hz: float) -> None:
    """The receivers of Ntanos et al. (2021), 100 urad and 0.2 nm at 1550 nm, computed elsewhere."""
    rate = photon_rate_hz(
        1.5e-3, receiver_m=receiver_m, field_of_view_urad=100, filter_nm=0.2, wavelength_nm=1550
    )
    assert float(rate) == pytest.approx(counts_hz, rel=0.01)


def test_the_field_of_view_is_an_angle_and_the_sky_an_area() -> None:
    rate = float(photon_rate_hz(1e-4, **PORTABLE))
    halved = float(photon_rate_hz(1e-4, **{**PORTABLE, "field_of_view_urad": 50.0}))
    assert halved == pytest.approx(rate / 4)
    shaded = float(photon_rate_hz(1e-4, **PORTABLE, receiver_obscuration=0.3))
    assert shaded == pytest.approx(0.91 * rate)


def test_daylight_at_1550_nm() -> None:
    """100 W/m^2 on the ground, 1 m, 50 urad, 80.1 pm: computed elsewhere from the same black body."""
    radiance = daylight_radiance(100.0, 1550)
    assert float(radiance) == pytest.approx(5.285372, rel=1e-6)
    rate = photon_rate_hz(
        radiance, receiver_m=1.0, field_of_view_urad=50, filter_nm=0.0801388, wavelength_nm=1550
    )
    assert float(rate) == pytest.approx(5.096746e6, rel=1e-5)
    assert float(daylight_radiance(0.0, 1550)) == 0


def test_nights_are_darker_than_days() -> None:
    nights = [sky_radiance(name) for name in ("moonless", "city", "moon")]
    days = [sky_radiance(name) for name in ("day-overcast", "day", "day-bright")]
    assert nights == sorted(nights)
    assert days == sorted(days)
    assert nights[-1] < days[0] / 1e4
    assert min(SKY_RADIANCE_W_M2_SR_UM.values()) > 0


@pytest.mark.parametrize("name", ["receiver_m", "field_of_view_urad", "filter_nm", "wavelength_nm"])
def test_impossible_receivers_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        photon_rate_hz(1e-4, **{**PORTABLE, name: 0.0})


def test_impossible_skies_are_refused() -> None:
    with pytest.raises(InputError, match="radiance"):
        photon_rate_hz(-1e-4, **PORTABLE)
    with pytest.raises(InputError, match="irradiance"):
        daylight_radiance(-1.0, 850)
    with pytest.raises(InputError, match="moonless"):
        sky_radiance("dusk")
