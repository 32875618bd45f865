# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.node_health import (
    Facts,
    Limits,
    decide,
    idle,
    memory_percent,
    offset_seconds,
    problems,
)

LIMITS = Limits(["/shared"], ["/", "/tmp"], 5, 10, 2)
# Recorded from Slurm 22.05.8 and shortened.
NODE = "NodeName=n1 Arch=x86_64 CPUTot=2 State={} ThreadsPerCore=1 Partitions=main  BootTime=2026-11-22T05:55:59"
BY_US = NODE.format("IDLE+DRAIN") + "   Reason=node health: /shared is not mounted [root@2026-11-22T09:40:00]"
BY_HAND = NODE.format("MIXED+DRAIN") + "   Reason=new memory [root@2026-11-22T09:40:00]"
WELL = NODE.format("IDLE")
UNMOUNTED = ["/shared is not mounted"]


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (Facts({}, {"/": 5.0, "/tmp": 50.0}, 10.0, 2.0), []),
        (Facts(), []),
        (Facts(broken_mounts={"/shared": "does not answer"}), ["/shared does not answer"]),
        (Facts(free_disk_percent={"/": 4.9, "/tmp": 3.0}),
         ["/ has less than 5 % free", "/tmp has less than 5 % free"]),
        (Facts(idle_memory_percent=9.9), ["without a job, less than 10 % of the memory is free"]),
        (Facts(clock_offset_seconds=2.1), ["the clock is off by more than 2 s"]),
    ],
)  # fmt: skip
def test_a_node_is_well_unless_a_limit_is_passed(facts, found):
    assert problems(facts, LIMITS) == found


def test_a_limit_of_0_switches_its_check_off():
    assert problems(Facts({}, {"/": 0.0}, 0.0, 1000.0), Limits()) == []


@pytest.mark.parametrize(
    ("shown", "found", "update"),
    [
        (WELL, [], []),
        (WELL, UNMOUNTED, ["State=DRAIN", "Reason=node health: /shared is not mounted"]),
        (BY_US, UNMOUNTED, []),
        (BY_US, ["/ is full"], ["State=DRAIN", "Reason=node health: / is full"]),
        (BY_US, [], ["State=RESUME"]),
        (BY_HAND, [], []),
        (BY_HAND, UNMOUNTED, []),
        # The reason stays after somebody has resumed the node by hand.
        (BY_US.replace("IDLE+DRAIN", "IDLE"), [], []),
        (BY_US.replace("IDLE+DRAIN", "IDLE"), UNMOUNTED,
         ["State=DRAIN", "Reason=node health: /shared is not mounted"]),
    ],
)  # fmt: skip
def test_it_drains_what_is_ill_and_resumes_what_it_drained_itself(shown, found, update):
    assert decide("n1", shown, found) == (["scontrol", "update", "NodeName=n1", *update] if update else [])


def test_only_the_memory_of_a_node_without_a_job_counts():
    assert idle(["/usr/sbin/slurmd -D", "/usr/sbin/slurmstepd infinity"])
    assert not idle(["/usr/sbin/slurmd -D", "slurmstepd: [12.batch]"])


def test_the_memory_is_read_from_the_kernel():
    assert memory_percent("MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    250 kB\n") == 25.0
    assert memory_percent("MemTotal: 1000 kB\n") is None


@pytest.mark.parametrize(
    ("tracking", "seconds"),
    [
        ("0A0B0C0D,10.11.12.13,3,1700000000.1,-0.5,0,0,1,0,0,0.01,0.25,64.0,Normal\n", 0.75),
        ("00000000,,0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n", None),
        ("", None),
    ],
)
def test_the_clock_is_judged_by_what_chrony_knows(tracking, seconds):
    assert offset_seconds(tracking) == seconds
