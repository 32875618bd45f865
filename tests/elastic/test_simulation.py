# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""node-power's engine between a simulated slurmctld and a simulated cloud, with whatever goes wrong."""

from __future__ import annotations

import os
import random
import time
from functools import partial

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.engine import Engine
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from elastic_simulator import Cluster, Faults

SEEDS = 1000 if os.environ.get("TURNKEY_LONG_TESTS") else 300
FAULTS_END = 3600.0
# An orphan: the grace time, a reconciliation, the lag of lists, and what a fault in the removal's way adds.
ORPHAN_BOUND = 600.0
# A node: Slurm's ResumeTimeout, then the longest cool-down, then SuspendTimeout, each found by a reconciliation.
STUCK_BOUND = 1500.0


def settings(count: int, **limits: float) -> Settings:
    kind = {"name": "burst", "nodes": f"b[1-{count}]", "provider": "simulated", "host": "cloud", "batch": 500}
    return Settings.parse({"kinds": [kind], "limits": limits})


@pytest.mark.parametrize("first", range(0, SEEDS, 20))
def test_no_series_of_faults_leaves_a_mess(first: int) -> None:
    for seed in range(first, first + 20):
        dice = random.Random(seed)
        allowed = dice.choice([0, 6, 12])
        faults = Faults.random(dice, FAULTS_END)
        # A machine that nobody could know of can't be counted.
        counts = allowed and not (faults.lost_reply or faults.worker_crashes or faults.lag_seconds)
        cluster = Cluster(seed, settings(20, max_nodes=allowed), ["fixed1", "fixed2"], faults)
        for number in range(dice.randrange(3, 15)):
            size, seconds = dice.choice([1, 1, 2, 4, 6]), dice.uniform(5, 600)
            cluster.events.after(dice.uniform(0, 3000) + number, partial(cluster.slurm.submit, size, seconds))
        cluster.events.run(FAULTS_END)
        faults.end()
        if cluster.memory.closed:
            cluster.engine.reset("main")
        while cluster.events.now < FAULTS_END + 6 * 3600 and (
            cluster.states() != {"COMPLETED"} or cluster.provider.machines or cluster.stuck()
        ):
            cluster.events.run(cluster.events.now + 600)
        what = f"seed {seed}, {faults}"
        assert cluster.states() == {"COMPLETED"}, what
        assert not cluster.provider.machines, what
        assert not cluster.stuck(), what
        assert not {"fixed1", "fixed2"} & cluster.slurm.touched, what
        assert cluster.longest["orphan"] <= ORPHAN_BOUND, what
        if not cluster.memory.closed and not any(event == "closed" for _at, event, _values in cluster.log):
            assert cluster.longest["stuck"] <= STUCK_BOUND, what
        if counts:
            assert cluster.provider.most <= allowed, what


def _grow(count: int) -> tuple[Cluster, float]:
    """Ask for all nodes at once; return how long it took until all were schedulable."""
    cluster = Cluster(1, settings(count))
    cluster.boot_seconds = lambda: 100.0
    cluster.events.after(1, lambda: cluster.slurm.submit(count, 60))
    while cluster.states() != {"RUNNING"} and cluster.events.now < 3600:
        cluster.events.run(cluster.events.now + 1)
    return cluster, cluster.slurm.jobs[0].started - 1


def test_a_thousand_nodes_come_with_less_than_30_seconds_of_our_own() -> None:
    cluster, seconds = _grow(1000)
    # The provider's own: the boot, the slower of two calls at a time, and slurmctld's turn every five seconds.
    own = seconds - 100 - 4 - 5
    print(f"0 to 1000 nodes: {seconds:.0f} s, {own:.0f} s of them node-power's (ParallelCluster: 540 s)")
    assert cluster.provider.launched == 1000
    assert own < 30


def test_ten_thousand_nodes_are_compared_within_two_seconds() -> None:
    cluster = Cluster(1, settings(10000))
    cluster.events.after(1, lambda: cluster.slurm.submit(2000, 1e6))
    cluster.events.run(400)
    machines = {"burst": cluster.provider.list()}
    engine: Engine = cluster.engine
    began = time.process_time()
    engine.reconcile(machines, (), cluster.events.now)
    seconds = time.process_time() - began
    print(f"reconciliation of 10000 nodes: {seconds:.2f} s of CPU, without what scontrol takes")
    assert seconds < 2
