"""Many runs of a hybrid network: weather times constellations times parameters, with Dask.

Every point of the grid is a day of the whole network in steps, one process's work. Its result is one small file in
`points/`, named by a hash of everything that makes it what it is; a point whose file is there is not computed again,
so an interrupted sweep goes on where it was, and a larger grid in the same folder adds what is new. Workers of a
cluster send their results back; only this process writes.

Without a scheduler's address the cluster is local: one worker process a core.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, Final

import pandas as pd

from experiments import hybrid_setup as setup
from experiments.folder import new_folder
from experiments.hybrid import Outcome, steps_of, write
from experiments.hybrid_fleet import STEP_MIN
from experiments.hybrid_setup import DAY_HOURS, HybridOptions
from experiments.progress import Reporter
from quantum.repeaters.cities import CITIES_CSV
from quantum.repeaters.day import run
from quantum.repeaters.parameters import LABEL
from quantum.repeaters.routing import Kind, Router
from topo.errors import FeatureMissing, InputError, MeasurementError

VERSION: Final = 1
"""Of what a point's file says; a new one makes all points be computed anew."""
CONNECT_S: Final = 10.0
"""How long a scheduler may take to answer."""
REMEDY: Final = "`pip install 'qntn[sweep]'`, which brings dask and distributed"


@dataclass(frozen=True)
class Point:
    """One run, by everything that its result depends on; plain text and numbers, so that it hashes."""

    weather: tuple[str, ...]
    """A climate, or files by name."""
    contents: tuple[str, ...]
    """Hashes of those files, and of the cities'."""
    seed: int
    constellation: str
    changes: tuple[str, ...]
    cities: str | None
    date: str
    days: float
    step_min: float
    router: Router

    @property
    def key(self) -> str:
        """Name of the point's file: the same for the same run on any machine."""
        plain = {**asdict(self), "version": VERSION, "cities": None}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """What is combined with what."""

    weathers: Sequence[str] = ("mid:1", "mid:2")
    """Climates, each with a seed after a colon if it has one (`mid:7`: another year), or files joined by commas."""
    constellations: Sequence[str] = ("10/1", "25/1")
    vary: Sequence[str] = ()
    """Parameters with their values, `receiver_m=0.8,1.0`."""
    dates: Sequence[str] = ()
    """By default that of the options."""
    days: float = 1.0
    step_min: float = STEP_MIN


def run_sweep(
    options: HybridOptions, grid: Grid, *, scheduler: str | None = None, reporter: Reporter
) -> Outcome:
    """Run a grid, or what of it is not there yet, and gather it in `sweep.csv`, `report.json` and a plot.

    `options.weather` is not used. Raises `InputError` for what cannot be, before anything is computed;
    `FeatureMissing` without Dask.
    """
    axes = [_axis(text) for text in grid.vary]
    points = _points(options, grid, axes)
    for point in points:
        _check(point)
    folder = _folder(options.out)
    store = folder / "points"
    missing = [point for point in points if not (store / f"{point.key}.json").exists()]
    reporter.note(f"{len(points) - len(missing)} of {len(points)} points are there already")
    if missing:
        reporter.stage(f"{len(missing)} points", len(missing))
        with _client(scheduler, options.workers) as client:
            for done, (point, result) in enumerate(_results(client, missing), start=1):
                _keep(store / f"{point.key}.json", {"point": asdict(point), **result})
                reporter.advance(done, f"{done} of {len(missing)}")
    rows = [_row(point, _read(store / f"{point.key}.json")) for point in points]
    report = {
        "experiment": "sweep",
        "label": LABEL,
        "weather": "; ".join(dict.fromkeys(str(row.pop("weather_description")) for row in rows)),
        "router": options.router,
        "days": grid.days,
        "step_min": grid.step_min,
        "changes": list(options.changes),
        "varied": [name for name, _ in axes],
        "points": len(points),
        "computed": len(missing),
    }
    outcome = Outcome(folder, report, {"sweep": pd.DataFrame(rows)})
    write(outcome)
    if options.plots:
        from experiments.hybrid_sweep_plots import write_sweep

        reporter.stage("plots")
        write_sweep(outcome)
    return outcome


def compute(point: Point) -> dict[str, Any]:
    """A point's result, JSON-able; in a worker process, which needs no more than the files named in it."""
    options = HybridOptions(
        changes=point.changes,
        cities=None if point.cities is None else Path(point.cities),
        router=point.router,
    )
    net = setup.network(options)
    start_s = setup.start_s(point.date)
    sky = setup.weather(point.weather, net.cities, start_s, point.days * DAY_HOURS, point.seed)
    day = run(
        net,
        setup.constellation(point.constellation),
        sky,
        start_s,
        steps=steps_of(point.days, point.step_min),
        step_s=60 * point.step_min,
        routers=(point.router,),
        processes=1,
    )
    bits = day.key_bits[point.router]
    return {
        "label": LABEL,
        "weather_description": sky.description,
        "threshold_km": day.threshold(point.router).distance_km,
        "key_bits": float(bits.sum()),
        "key_bits_by_satellites": float(bits[:, Kind.SPACE].sum() + bits[:, Kind.HYBRID].sum()),
        "pairs_without_key": int((day.total_bits(point.router) == 0).sum()),
    }


def _axis(text: str) -> tuple[str, list[str]]:
    """A parameter and its values."""
    name, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not all(value.strip() for value in values.split(",")):
        raise InputError(f"--vary {text}: a parameter with its values, such as receiver_m=0.8,1.0")
    return name, [value.strip() for value in values.split(",")]


def _points(
    options: HybridOptions, grid: Grid, axes: Sequence[tuple[str, Sequence[str]]]
) -> list[Point]:
    """All points, each once, in the order given."""
    if not grid.weathers or not grid.constellations:
        raise InputError("a sweep needs a --weather and a --constellation at least")
    cities = CITIES_CSV if options.cities is None else options.cities
    points = []
    for weather, date, constellation, values in product(
        grid.weathers,
        grid.dates or (options.date,),
        grid.constellations,
        product(*(values for _, values in axes)),
    ):
        words, seed = _weather(weather, options.seed)
        varied = [f"{name}={value}" for (name, _), value in zip(axes, values, strict=True)]
        files = [cities, *(Path(word) for word in words if Path(word).is_file())]
        if constellation.startswith("tle:") and Path(constellation[4:]).is_file():
            files.append(Path(constellation[4:]))
        points.append(
            Point(
                words,
                tuple(
                    hashlib.sha256(file.read_bytes()).hexdigest()
                    for file in files
                    if file.is_file()
                ),
                seed,
                constellation,
                (*options.changes, *varied),
                None if options.cities is None else str(options.cities.absolute()),
                date,
                grid.days,
                grid.step_min,
                options.router,
            )
        )
    return list(dict.fromkeys(points))


def _weather(text: str, seed: int) -> tuple[tuple[str, ...], int]:
    """`mid:7` is a climate with a seed; anything else is one or more words."""
    climate, colon, number = text.partition(":")
    if colon and number.isdecimal():
        return (climate,), int(number)
    return tuple(text.split(",")), seed


def _check(point: Point) -> None:
    """Raise what the point would raise in a worker, now and here."""
    steps_of(point.days, point.step_min)
    options = HybridOptions(
        changes=point.changes, cities=None if point.cities is None else Path(point.cities)
    )
    net = setup.network(options)
    setup.constellation(point.constellation)
    setup.weather(point.weather, net.cities, setup.start_s(point.date), 1, point.seed)


def _folder(out: Path | None) -> Path:
    """A new folder, or that of a sweep to go on with; `InputError` for one of something else."""
    is_sweep = out is not None and (out / "points").is_dir()
    folder = out if out is not None and is_sweep else new_folder("hybrid-sweep", out)
    (folder / "points").mkdir(exist_ok=True)
    return folder


@contextmanager
def _client(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """A client of the scheduler at that address, or of a cluster of this machine's cores."""
    try:
        dask, distributed = import_module("dask"), import_module("distributed")
    except ImportError as error:
        raise FeatureMissing("Dask (dask, distributed)", REMEDY) from error
    if scheduler is not None:
        try:
            client = distributed.Client(scheduler, timeout=CONNECT_S)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--scheduler {scheduler}: no Dask scheduler answers there ({error}); give its address, such as "
                "tcp://192.0.2.1:8786, or leave it out"
            ) from error
        with client:
            yield client
        return
    quiet = {"distributed.worker.daemon": True, "logging.distributed": "error"}
    with (
        dask.config.set(quiet),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, silence_logs=40
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def _results(client: Any, points: Sequence[Point]) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Every point with its result, as they are done."""
    futures = {client.submit(compute, point, key=f"hybrid-{point.key}"): point for point in points}
    try:
        for future in import_module("distributed").as_completed(list(futures)):
            error = future.exception()
            if error is not None:
                point = futures[future]
                kind = InputError if isinstance(error, InputError) else MeasurementError
                raise kind(f"point {_name(point)}: {error}") from error
            yield futures[future], future.result()
    finally:
        client.cancel(list(futures), force=True)


def _name(point: Point) -> str:
    return ", ".join([*point.weather, point.constellation, *point.changes])


def _keep(path: Path, result: Mapping[str, Any]) -> None:
    """Whole or not at all: an interrupted sweep leaves no half a file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in RESULTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a point's result; remove it to compute it anew") from error


RESULTS: Final = (
    "weather_description",
    "threshold_km",
    "key_bits",
    "key_bits_by_satellites",
    "pairs_without_key",
)


def _row(point: Point, result: Mapping[str, Any]) -> dict[str, Any]:
    changes = dict(change.partition("=")[::2] for change in point.changes)
    climate = len(point.weather) == 1 and not Path(point.weather[0]).is_file()
    files = " ".join(Path(word).name for word in point.weather)
    return {
        "weather": f"{point.weather[0]}:{point.seed}" if climate else files,
        "date": point.date,
        "constellation": point.constellation,
        **changes,
        **result,
    }
