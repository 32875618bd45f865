# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one new node costs in a cluster of 10 and of 1,000, on hosts that don't exist."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
SIZES = (10, 1000)


def load_benchmark():
    spec = importlib.util.spec_from_file_location("add_node", TOP / "benchmarks/add_node.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    bench, place, found = load_benchmark(), tmp_path_factory.mktemp("scale"), {}
    for size in SIZES:
        inventory, node = bench.write_inventory(place, size)
        found[size] = {
            "node": node,
            "listing": bench.read_only(inventory),
            "known": bench.add_node(inventory, node, changed=False),
            "new": bench.add_node(inventory, node, changed=True),
        }
    return found


def test_a_new_node_costs_the_same_number_of_module_runs_in_any_cluster(costs):
    small, large = (costs[size]["new"].runs[costs[size]["node"]] for size in SIZES)
    assert 0 < small == large <= 14


def test_each_other_node_is_told_by_one_module_run(costs):
    for size in SIZES:
        runs = dict(costs[size]["new"].runs)
        del runs[costs[size]["node"]]
        # The last one is asked before, and the head gets the host file for jobs, too.
        assert sorted(runs.values())[:-2] == [1] * (size - 3)
        assert sum(runs.values()) <= size + 4


def test_a_node_that_the_others_know_costs_them_nothing(costs):
    for size in SIZES:
        runs = dict(costs[size]["known"].runs)
        del runs[costs[size]["node"]]
        assert sum(runs.values()) == 3, "one is asked about the names, the head about its host file and Slurm"


def test_the_control_node_works_as_long_on_a_node_of_a_large_cluster_as_on_one_of_a_small_one(costs):
    small, large = (costs[size]["known"].cpu - costs[size]["listing"] for size in SIZES)
    assert large < 2 * small


def test_telling_a_thousand_nodes_costs_a_tenth_of_a_task_each(costs):
    size = SIZES[-1]
    telling = costs[size]["new"].cpu - costs[size]["known"].cpu
    assert telling / size < 0.014  # a pipelined task costs the control node 0.14 CPU seconds a host
