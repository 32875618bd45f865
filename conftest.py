# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of all tests: those that take minutes wait for `make test-full`, and none may skip itself where the Makefile runs it.

Tests skip themselves where what they need can't be had, as on a target's Python.
"""

from __future__ import annotations

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option --no-skips."""
    parser.addoption("--no-skips", action="store_true", help="a skipped test has failed: what it needs is missing")


def _failed(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and config.getoption("--no-skips") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        _path, _line, reason = report.longrepr
        report.longrepr = f"{report.nodeid}: {reason}; the targets of the Makefile install what tests need"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> object:
    """Let a test that skips itself fail."""
    report = yield
    _failed(report, item.config)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> object:
    """Let a file of tests that skips itself fail."""
    report = yield
    _failed(report, collector.config)
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of tests that take minutes."""
    config.addinivalue_line("markers", "minutes: takes minutes, for make test-full (TURNKEY_LONG_TESTS=1)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes."""
    if not os.environ.get("TURNKEY_LONG_TESTS"):
        long = [item for item in items if item.get_closest_marker("minutes")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
