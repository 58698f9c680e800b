"""`--require TIERS`: in these tiers a skipped test is a failed one, so that a skip cannot hide in a green run."""

from __future__ import annotations

from collections.abc import Generator

import pytest

TIERS = ("emulation", "interop", "crash")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="TIERS",
        help=f"fail instead of skip in these tiers, separated by commas: {', '.join(TIERS)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    unknown = set(_required(config)) - set(TIERS)
    if unknown:
        raise pytest.UsageError(f"--require: no tier {', '.join(sorted(unknown))}")


def _required(config: pytest.Config) -> list[str]:
    return [tier for tier in config.getoption("--require").split(",") if tier]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    required = [tier for tier in _required(item.config) if item.get_closest_marker(tier)]
    if report.skipped and required:
        report.outcome = "failed"
        report.longrepr = f"skipped, but tier {required[0]} is required: {report.longrepr}"
    return report
