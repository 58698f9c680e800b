"""Which links a hybrid network has, minute by minute: its fibre graph, its space graph, and the better of both.

The steps of the paper (Photonics 11, 268 (2024), section 3), for n cities and all n (n-1)/2 pairs of
them (order: `cities.pair_indices`), which every array has as its last axis:

    network = Network(read_cities(), Parameters())       # the fibre graph, once
    view = network.view(FixedSatellite(), unix_s, conditions)   # what every city sees, each minute
    space = network.space_graph(view)                    # SpaceGraph: best satellite of each pair
    graph = network.hybrid_graph(space)                  # Graph: better link of each pair
    routes = routing.route(graph, "safe")                # Routes: best path of each pair

`unix_s` is (minutes,), seconds since 1970 UTC; `conditions` a `weather.Conditions`, (minutes, n).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantum.repeaters.channel import atmosphere_efficiency, vacuum_efficiency
from quantum.repeaters.cities import City, pair_distances_km, pair_indices
from quantum.repeaters.constellation import Constellation, ground, look
from quantum.repeaters.links import (
    GroundChain,
    Link,
    best_ground_chain,
    space_link,
    station_werners,
)
from quantum.repeaters.parameters import LABEL, Parameters
from quantum.repeaters.weather import Conditions
from quantum.repeaters.werner import sky_radiance, stray_probability, stray_rate_hz
from topo.errors import InputError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """What every city sees of every satellite: the last axes are (minutes, satellites, cities)."""

    range_km: Floats
    elevation_deg: Floats
    atmosphere: Floats
    """What air and clouds let through; 0 below the mask."""
    efficiency: Floats
    """eta_tot of the downlink; 0 below the mask."""
    stray: Floats
    """P_stray of each station, shape (minutes, cities)."""


@dataclass(frozen=True)
class SpaceGraph(Link):
    """The best satellite of every pair, each minute: arrays (minutes, pairs)."""

    satellite: NDArray[np.int16]
    """Its number; -1 where none yields key."""


@dataclass(frozen=True)
class Graph(Link):
    """The better link of every pair, fibre or satellite, each minute: arrays (minutes, pairs)."""

    by_space: NDArray[np.bool_]
    parameters: Parameters
    cities: int


@dataclass(frozen=True)
class PairView:
    """Best satellite link of one pair over time, each (minutes,); NaN while there is none."""

    link: Link
    satellite: NDArray[np.int16]
    bsm_werner_a: Floats
    """What stray light leaves to the BSM at the first city."""
    bsm_werner_b: Floats
    weather_loss_dB: Floats
    """Of air and clouds on both downlinks together."""
    label: str = LABEL


class Network:
    """Cities, all pairs of them, and the fibre graph. The parameters hold for every link."""

    def __init__(self, cities: Sequence[City], parameters: Parameters) -> None:
        if len(cities) < 2:
            raise InputError(f"a network of {len(cities)} cities: two or more")
        self.cities = tuple(cities)
        self.parameters = parameters
        self.first, self.second = pair_indices(len(self.cities))
        self.distance_km = pair_distances_km(self.cities)
        self.fibre: GroundChain = best_ground_chain(self.distance_km, parameters)

    @property
    def pairs(self) -> int:
        return len(self.first)

    def view(self, constellation: Constellation, unix_s: ArrayLike, conditions: Conditions) -> View:
        """Downlinks of all satellites to all cities at instants (minutes,), in that weather."""
        instants = np.atleast_1d(np.asarray(unix_s, dtype=np.float64))
        position_km = constellation.positions_km(instants)
        return self.view_at(constellation.ellipsoid, position_km, conditions)

    def view_at(self, ellipsoid: bool, position_km: Floats, conditions: Conditions) -> View:
        """The same from satellites' positions (3, satellites, minutes), see `Constellation`."""
        expected = (position_km.shape[-1], len(self.cities))
        if conditions.cloud.shape != expected:
            raise InputError(
                f"weather of shape {conditions.cloud.shape}: {expected} are (minutes, cities)"
            )
        p = self.parameters
        distance_km, elevation = look(ground(self.cities, ellipsoid), position_km)
        minute, satellite, city = np.nonzero(elevation >= p.mask_deg)
        seen = (minute, satellite, city)
        atmosphere, efficiency = np.zeros_like(elevation), np.zeros_like(elevation)
        atmosphere[seen] = atmosphere_efficiency(
            elevation[seen],
            conditions.visibility_km[minute, city],
            conditions.cloud[minute, city],
            p,
        )
        efficiency[seen] = vacuum_efficiency(distance_km[seen], p) * atmosphere[seen]
        radiance = sky_radiance(conditions.irradiance_W_m2, p)
        stray = stray_probability(stray_rate_hz(radiance, p), p)
        return View(distance_km, elevation, atmosphere, efficiency, stray)

    def space_graph(self, view: View) -> SpaceGraph:
        """Every pair's satellite of the highest SKP, W breaking ties."""
        shape = (len(view.efficiency), self.pairs)
        probability, werner, skp = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        best = np.full(shape, -1, dtype=np.int16)
        for satellite in range(view.efficiency.shape[1]):
            efficiency = view.efficiency[:, satellite]
            # Most satellites are elsewhere most of the time: look at minutes with two cities only.
            minutes = np.flatnonzero((efficiency > 0).sum(axis=1) >= 2)
            if not minutes.size:
                continue
            link = self._space_link(efficiency[minutes], view.stray[minutes])
            better = _is_better(link, Link(probability[minutes], werner[minutes], skp[minutes]))
            row, pair = np.nonzero(better)
            at = (minutes[row], pair)
            probability[at], werner[at], skp[at] = (
                link.probability[row, pair],
                link.werner[row, pair],
                link.skp[row, pair],
            )
            best[at] = satellite
        return SpaceGraph(probability, werner, skp, best)

    def _space_link(self, efficiency: Floats, stray: Floats) -> Link:
        """Links of one satellite, (minutes, pairs), from efficiencies and stray light (minutes, n)."""
        a, b = self.first, self.second
        link = space_link(
            efficiency[:, a], efficiency[:, b], stray[:, a], stray[:, b], self.parameters
        )
        return Link(link.probability, np.broadcast_to(link.werner, link.skp.shape), link.skp)

    def hybrid_graph(self, space: SpaceGraph) -> Graph:
        """Every pair's better link by SKP, W breaking ties."""
        by_space = _is_better(space, self.fibre)  # the fibre graph broadcasts over the minutes
        return Graph(
            np.where(by_space, space.probability, self.fibre.probability),
            np.where(by_space, space.werner, self.fibre.werner),
            np.where(by_space, space.skp, self.fibre.skp),
            by_space,
            self.parameters,
            len(self.cities),
        )

    def pair_view(self, view: View, space: SpaceGraph, pair: int) -> PairView:
        """What becomes of one pair's satellite link: its BSMs and its weather, minute by minute."""
        satellite = space.satellite[:, pair]
        minute = np.arange(len(satellite))
        a, b = int(self.first[pair]), int(self.second[pair])
        chosen = np.maximum(satellite, 0)
        there = satellite >= 0

        def of_pair(values: Floats) -> Floats:
            return np.where(there, values[:, pair], np.nan)

        def of_end(values: Floats, city: int) -> Floats:
            if not values.shape[1]:  # no satellites at all
                return np.full(len(minute), np.nan)
            return np.where(there, values[minute, chosen, city], np.nan)

        link = Link(of_pair(space.probability), of_pair(space.werner), of_pair(space.skp))
        at_a, at_b = station_werners(
            link.probability,
            (of_end(view.efficiency, a), of_end(view.efficiency, b)),
            (view.stray[:, a], view.stray[:, b]),
            self.parameters,
        )
        air = of_end(view.atmosphere, a) * of_end(view.atmosphere, b)
        return PairView(
            link,
            satellite,
            np.where(there, at_a, np.nan),
            np.where(there, at_b, np.nan),
            np.asarray(-10 * np.log10(air)),
        )


def _is_better(one: Link, other: Link) -> NDArray[np.bool_]:
    """Where the first link yields more key, or as much from better pairs."""
    tie = (one.skp == other.skp) & (one.skp > 0) & (one.werner > other.werner)
    return np.asarray((one.skp > other.skp) | tie)
