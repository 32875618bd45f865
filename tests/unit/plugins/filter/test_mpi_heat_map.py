# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.filter.mpi_heat_map import FilterModule


def test_the_filter_draws_the_detail_of_a_check():
    link = {"hosts": ["a", "b"], "latency_us": 2.0, "bandwidth_mb_s": 100.0}
    detail = {"hosts": ["a", "b"], "links": [link], "median": {"latency_us": 2.0, "bandwidth_mb_s": 100.0}}
    picture = FilterModule().filters()["mpi_heat_map"](detail, "lab")
    assert picture.startswith("<svg")
    assert ">lab</text>" in picture
    assert "a - b: 2 us, median 2" in picture
