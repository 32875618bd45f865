# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-ins are packages beside these tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

for folder in (Path(__file__).parent, Path(__file__).parents[1]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from clusters import LONG

# Its runs install packages for a minute or more.
collect_ignore = [] if LONG else ["test_image_build.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of tests that take minutes."""
    config.addinivalue_line("markers", "minutes: takes minutes, for make test-cloud-long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes."""
    long = [] if LONG else [item for item in items if item.get_closest_marker("minutes")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]
