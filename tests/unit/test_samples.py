"""Reading and writing `samples.csv`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.samples import read_samples, rtts_ms, write_samples
from topo.errors import InputError

CSV = """\
arm,seq,sent_ns,rtt_ns
plain,0,1800000000000000001,544584001
plain,1,1800000001000000000,
plain,2,1800000002000000000,600000000
"""


def test_a_lost_probe_is_nan_and_nanoseconds_survive(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text(CSV)
    samples = read_samples(path)
    assert samples["sent_ns"][0] == 1800000000000000001
    np.testing.assert_array_equal(rtts_ms(samples)["plain"], [544.584001, np.nan, 600.0])
    write_samples(tmp_path / "again.csv", samples)
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()


def test_files_are_joined_and_arms_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text(CSV.replace("plain", "satellite"))
    shuffled = [CSV.splitlines()[i] for i in (0, 3, 1, 2)]
    (tmp_path / "a.csv").write_text("\n".join(shuffled))
    by_arm = rtts_ms(read_samples([tmp_path / "z.csv", tmp_path / "a.csv"]))
    assert list(by_arm) == ["satellite", "plain"]
    np.testing.assert_array_equal(by_arm["plain"], by_arm["satellite"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("arm,seq,sent_ns\nplain,0,1\n", "columns arm, seq, sent_ns instead"),
        ("arm,seq,sent_ns,rtt_ns\nplain,zero,1,2\n", "not a table of samples"),
        ("", "not a table of samples"),
        (None, "No such file"),
    ],
)
def test_what_is_not_samples_is_refused(tmp_path: Path, text: str | None, reason: str) -> None:
    path = tmp_path / "samples.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=reason):
        read_samples(path)
