"""What every test has: full or short counts, and a suite in which nothing is skipped unnoticed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from typing import Any

import pytest

pytest_plugins = ["pytester"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts what runs in the background so, and every program of a test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="full counts instead of a tenth")
    parser.addoption("--enforcement", default="auto", help="what the shared hosts' containers are bounded by")
    gpu = parser.getgroup("tests/gpu, on a host without the usual packages")
    gpu.addoption("--engine", metavar="FOLDER", help="another engine than the system's")
    gpu.addoption("--image", metavar="TAR", help="a root file system to use instead of busybox's")
    gpu.addoption("--programs", metavar="FOLDER", help="the compiled test programs")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For ./dev test, which has pytest-xdist; a GPU host may be without."""
    from tests.scheduling import Scheduling

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> bool:
    """Whether this is ./dev soak, for a test whose two counts are no multiples of each other."""
    return bool(request.config.getoption("--soak"))


@pytest.fixture(scope="session")
def count(soak: bool) -> Callable[[int], int]:
    """How often to repeat: the full count under ./dev soak, a tenth of it (at least once) otherwise."""
    return lambda full: full if soak else max(1, full // 10)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skip is a failure, unless the test is marked may_skip and so says that it can do without."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("may_skip") is None:
        fail_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole file may not be skipped either, as pytest.importorskip does."""
    report = yield
    if report.skipped:
        fail_skipped(report)
    return report


def fail_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    assert isinstance(report.longrepr, tuple)
    path, line, reason = report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{path}:{line}: skipped, which only a test marked may_skip may be: {reason}"
