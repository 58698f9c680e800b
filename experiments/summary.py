"""`summary.json`: what a run of the paper's experiment measured, beside what was predicted.

Every model here is frozen and refuses unknown keys, so that a file written by one version and read
by another either means the same or is an error. `None` (JSON `null`) stands for "not defined": the
mean of an arm that lost every probe, the autocorrelation of identical samples, an arm nobody has
published.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from topo.errors import InputError
from topo.links.delays import Basis

Scalar = str | int | float | bool | None
AnyModel = TypeVar("AnyModel", bound=BaseModel)

SD_TOLERANCE = 3.0
"""A figure agrees with a published one within this many run-to-run standard deviations."""

LEAST_SD_MS = 1e-6
"""A run-to-run deviation below a nanosecond is rounding: nothing in such an arm varies."""

FIGURES: tuple[Literal["min_ms", "mean_ms", "max_ms", "jitter_ms"], ...] = (
    "min_ms",
    "mean_ms",
    "max_ms",
    "jitter_ms",
)
"""The four figures the paper reports for an arm."""


class Record(BaseModel):
    """A frozen record that refuses unknown keys and non-numbers such as NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class RttFigures(Record):
    """The four figures the paper reports for an arm: RTT extremes, mean and jitter."""

    min_ms: float
    mean_ms: float
    max_ms: float
    jitter_ms: float


class Prediction(RttFigures):
    """What the scenario's delay laws predict for this many probes, and the run-to-run spread."""

    sd: RttFigures
    """Standard deviation of each figure over repeated runs, from sampling alone."""


class RttStatistics(Record):
    """RTT statistics of one arm, as `experiments.statistics.rtt_statistics` computes them."""

    n: NonNegativeInt
    """Probes sent (warm-up excluded)."""
    lost: NonNegativeInt
    """Probes without an answer within the timeout."""
    min_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    sigma_ms: float | None
    """Population standard deviation, equation (4) of the paper."""
    jitter_ms: float | None
    """Mean of |T_i - T_(i-1)|, equation (5) of the paper."""
    lag1: float | None
    """Autocorrelation of consecutive RTTs: tells a sawtooth from noise of the same extremes."""


class DelayTerm(Record):
    """One element of an arm's delay budget and where its number comes from."""

    hop: str
    """Hop it acts on, such as `VSAT-HTS`."""
    element: str
    """What it is, such as `propagation` or `scheduling request`."""
    mean_ms: float
    """Mean contribution to one RTT, both directions together."""
    sd_ms: float = 0.0
    """Standard deviation of that contribution from probe to probe."""
    basis: Basis
    """Why the number is what it is: physics, or a fit to the published statistics, and so on."""
    source: str
    """Equation, table, section or note that the number comes from."""


class Goodput(Record):
    """One iperf transfer, as the receiver saw it."""

    protocol: Literal["tcp", "udp"]
    direction: Literal["up", "down"] = "up"
    goodput_mbps: float
    """Payload received per second, 10^6 bits."""
    duration_s: float
    lost: NonNegativeInt | None = None
    """Datagrams that never arrived; `None` for TCP."""
    sent: NonNegativeInt | None = None
    """Datagrams sent; `None` for TCP."""
    jitter_ms: float | None = None
    """Smoothed interarrival jitter of RFC 3550 (not equation (5)); `None` for TCP."""


class ProbeNoise(Record):
    """How far the prober itself strayed from its schedule."""

    worst_lateness_ns: int
    p99_lateness_ns: int


class Arm(RttStatistics):
    """One arm: its statistics, and beside them what was predicted and what was published."""

    mean_ci95_ms: tuple[float, float] | None = None
    """95 % confidence interval of the mean RTT, a block bootstrap (RTTs may be autocorrelated)."""
    jitter_ci95_ms: tuple[float, float] | None = None
    """The same of J."""
    published: RttFigures | None = None
    predicted: Prediction | None = None
    budget: tuple[DelayTerm, ...] = ()
    goodput: tuple[Goodput, ...] = ()
    noise: ProbeNoise | None = None

    def deviations(self, against: Literal["published", "predicted"]) -> dict[str, float | None]:
        """Distance of each emulated figure from the published or predicted one, in run-to-run sd.

        Returns figure name -> (emulated - reference) / sd; `None` where one of the three is missing
        or the sd is zero (a deterministic arm has no run-to-run spread to measure with).
        """
        reference = self.published if against == "published" else self.predicted
        result: dict[str, float | None] = {}
        for figure in FIGURES:
            value: float | None = getattr(self, figure)
            if reference is None or self.predicted is None or value is None:
                result[figure] = None
                continue
            sd: float = getattr(self.predicted.sd, figure)
            varies = sd > LEAST_SD_MS
            result[figure] = (value - getattr(reference, figure)) / sd if varies else None
        return result

    def agrees(self) -> bool | None:
        """Whether every published figure is met within `SD_TOLERANCE`; `None`: none compares."""
        distances = [d for d in self.deviations("published").values() if d is not None]
        return all(abs(d) <= SD_TOLERANCE for d in distances) if distances else None


class Overhead(Record):
    """The test of a difference of mean RTT between two arms (second minus first)."""

    mean_ms: float
    """Difference of the means."""
    ci95_ms: tuple[float, float]
    """95 % confidence interval of that difference."""
    p_value: float
    """Two-sided p of the t test, Welch's or paired: how often chance alone differs this much."""
    t: float | None
    """The difference over its standard error; `None` when neither arm varies at all."""
    standard_error_ms: float
    n_for_80_percent_power: int | None
    """Probes an arm needs to detect this difference at the 5 % level four times in five; `None`
    when the difference is zero, which no number of probes detects."""
    mann_whitney_p: float | None = None
    """Two-sided p of the rank test, which assumes no shape of the distributions."""


class JitterTest(Record):
    """The test of a difference of spread between two arms (second over first)."""

    jitter_ratio: float
    """Jitter of the second arm over that of the first; the paper claims 0.5."""
    ci95: tuple[float, float]
    variance_ratio: float
    """Sample variance of the first arm over that of the second."""
    f_test_p: float
    """Two-sided p of the F test, which assumes independent, normally distributed RTTs."""
    levene_p: float | None = None
    """p of Levene's test about the median (Brown-Forsythe), which assumes no normality."""


class SiteLedger(Record):
    """One site's key ledger at the end of the run."""

    received_bits: NonNegativeInt
    delivered_keys: NonNegativeInt
    delivered_bits: NonNegativeInt
    remaining_bits: NonNegativeInt


class Keys(Record):
    """Where the session keys came from and where they went."""

    passes: dict[str, dict[str, Scalar]] = Field(default_factory=dict)
    """Quantum pass, such as `K1 (Beijing)` -> its figures: detections, QBER, secret bits ..."""
    relayed_bits: NonNegativeInt = 0
    """Bits of K1 that reached the second site as K1 xor K2."""
    sites: dict[str, SiteLedger] = Field(default_factory=dict)
    """Site name -> ledger."""
    session_keys: NonNegativeInt = 0
    """Keys the gateways fetched and used."""
    rekeys: NonNegativeInt = 0
    """Times the tunnel changed keys while in use."""


class CaptureVerdict(Record):
    """What an independent decoder (tshark) found in one capture."""

    esp_packets: NonNegativeInt
    icv_good: NonNegativeInt
    icv_bad: NonNegativeInt
    inner_icmp: NonNegativeInt = 0
    """ICMP echo packets visible inside ESP after decryption."""
    plaintext_packets: NonNegativeInt
    """Packets that show the UE's or DN's address without decryption."""

    @property
    def sealed(self) -> bool:
        """Whether every ESP packet verified and nothing passed unprotected."""
        return (
            0 < self.esp_packets == self.icv_good
            and self.icv_bad == 0
            and self.plaintext_packets == 0
        )


class Summary(Record):
    """All of `summary.json`."""

    arms: dict[str, Arm]
    overhead: Overhead | None = None
    """`encrypted` minus `plain`: the paper's 5 ms claim, on this run's samples."""
    tunnel_overhead: Overhead | None = None
    """`encrypted_same_radio` minus `plain`: what the tunnel itself does."""
    jitter: JitterTest | None = None
    """`encrypted` over `plain`: the paper's 50 % claim, on this run's samples."""
    keys: Keys = Keys()
    captures: dict[str, CaptureVerdict] = Field(default_factory=dict)


def write_summary(path: Path, summary: Summary) -> None:
    """Write `summary` as indented JSON."""
    path.write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_summary(path: Path) -> Summary:
    """Read what `write_summary` wrote.

    Raises `InputError` when the file is missing or is not a summary of this version.
    """
    return read_record(path, Summary)


def read_record(path: Path, kind: type[AnyModel]) -> AnyModel:
    """Read one JSON file as a `kind`.

    Raises `InputError` naming the file, the first offending key and what is wrong with it.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where + ': ' if where else ''}{first['msg']}") from error
