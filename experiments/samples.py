"""`samples.csv`: one row a probe, `arm,seq,sent_ns,rtt_ns`, `rtt_ns` empty when the probe was
lost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from topo.errors import InputError

COLUMNS = {"arm": "string", "seq": "int64", "sent_ns": "int64", "rtt_ns": "Int64"}
"""Column -> pandas type; `Int64` is the integer that may be missing."""


def read_samples(paths: Path | Iterable[Path]) -> pd.DataFrame:
    """One table out of one or several files, each arm's rows in sending order.

    Raises `InputError` when a file is missing or is not a table of samples.
    """
    tables = []
    for path in [paths] if isinstance(paths, Path) else paths:
        try:
            table = pd.read_csv(path, dtype=COLUMNS)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        except ValueError as error:  # pandas' parser errors are ValueErrors
            raise InputError(f"{path}: not a table of samples: {error}") from error
        found = [str(column) for column in table.columns]
        if found != list(COLUMNS):
            raise InputError(f"{path}: columns {', '.join(found)} instead of {', '.join(COLUMNS)}")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def write_samples(path: Path, samples: pd.DataFrame) -> None:
    """Write a table of samples; the same samples give the same bytes."""
    samples[list(COLUMNS)].to_csv(path, index=False, lineterminator="\n")


def rtts_ms(samples: pd.DataFrame) -> dict[str, npt.NDArray[np.float64]]:
    """Each arm's RTTs in ms in sending order, NaN for lost, arms in order of appearance."""
    return {
        str(arm): rows.sort_values("seq")["rtt_ns"].to_numpy(dtype=np.float64, na_value=np.nan)
        / 1e6
        for arm, rows in samples.groupby("arm", sort=False)
    }
