# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.hardware import measure

GIB = 1 << 30


def machine(place, sockets, cores, threads, online=None):
    """Make /sys/devices/system/cpu as Linux numbers it: the first threads of all cores, then the second ones."""
    number = 0
    for _thread in range(threads):
        for socket in range(sockets):
            for core in range(cores):
                topology = place / f"cpu{number}" / "topology"
                topology.mkdir(parents=True)
                (topology / "physical_package_id").write_text(f"{socket}\n")
                (topology / "core_id").write_text(f"{core}\n")
                number += 1
    (place / "online").write_text(online or f"0-{number - 1}\n")
    return place


@pytest.mark.parametrize(("sockets", "cores", "threads"), [(1, 2, 1), (2, 16, 2), (4, 8, 1)])
def test_sockets_cores_and_threads_are_counted(tmp_path, sockets, cores, threads) -> None:
    assert measure(machine(tmp_path, sockets, cores, threads), 8 * GIB) == {
        "cpus": sockets * cores * threads,
        "sockets": sockets,
        "cores_per_socket": cores,
        "threads_per_core": threads,
        "memory_mb": 8192,
    }


def test_cpus_that_are_off_do_not_count(tmp_path) -> None:
    assert measure(machine(tmp_path, 1, 4, 2, "0-3"), GIB)["threads_per_core"] == 1


def test_irregular_cores_are_only_counted(tmp_path) -> None:
    assert measure(machine(tmp_path, 1, 4, 2, "0-5"), GIB) == {"cpus": 6, "memory_mb": 1024}


def test_a_single_cpu_is_a_machine_too(tmp_path) -> None:
    assert measure(machine(tmp_path, 1, 1, 1, "0\n"), GIB)["cpus"] == 1


def test_without_topology_each_cpu_is_a_core_of_one_socket(tmp_path) -> None:
    (tmp_path / "online").write_text("0-3\n")
    assert measure(tmp_path, GIB)["cores_per_socket"] == 4
