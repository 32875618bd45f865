# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.figures import complete_kinds, promised_mb

LIBVIRT = {"kinds": {"small": {"vcpus": 2, "memory_mb": 4096}}}
LARGE = {"cpus": 8, "sockets": 1, "cores_per_socket": 4, "threads_per_core": 2, "memory_mb": 16384}


def completed(*kinds, figures=None):
    """Return the kinds, and what clouds were asked."""
    asked = []

    def look_up(provider, types):
        asked.append((provider, types))
        return figures or {}

    return complete_kinds(kinds, LIBVIRT, look_up, 0.95), asked


def kind(provider, machine, **rest):
    return {"name": "burst", "nodes": "b[1-4]", "provider": provider, "machine": machine, **rest}


def test_a_virtual_machine_has_what_its_kind_says() -> None:
    (found,), asked = completed(kind("libvirt", {"instance_type": "small"}))
    assert (found["cpus"], found["memory_mb"]) == (2, promised_mb(4096, 0.95))
    assert asked == []


def test_a_container_has_its_limits() -> None:
    (found,), _asked = completed(kind("docker", {"limit_cpus": 4, "limit_memory_mb": 8000}))
    assert (found["cpus"], found["memory_mb"]) == (4, 7600)


def test_a_cloud_is_asked_once_for_all_its_instance_types() -> None:
    first = kind("aws", {"instance_type": "c.large"})
    second = {**kind("aws", {"instance_type": "c.small"}), "name": "other"}
    same = {**kind("aws", {"instance_type": "c.large"}), "name": "third"}
    found, asked = completed(first, second, same, figures={"c.large": LARGE, "c.small": {"cpus": 1, "memory_mb": 2048}})
    assert asked == [("aws", ["c.large", "c.small"])]
    assert {key: found[0][key] for key in LARGE} == {**LARGE, "memory_mb": 15564}
    assert (found[1]["cpus"], found[2]["cpus"]) == (1, 8)


@pytest.mark.parametrize(
    ("declared", "rest"),
    [
        ({"cpus": 2}, {"memory_mb": 15564}),
        ({"Sockets": 1, "CoresPerSocket": 2}, {"memory_mb": 15564}),
        ({"memory_mb": 900}, {key: value for key, value in LARGE.items() if key != "memory_mb"}),
        ({"RealMemory": 900}, {key: value for key, value in LARGE.items() if key != "memory_mb"}),
    ],
)
def test_what_is_declared_stays_and_the_rest_is_added(declared, rest) -> None:
    given = kind("aws", {"instance_type": "c.large"}, **declared)
    (found,), _asked = completed(given, figures={"c.large": LARGE})
    assert found == {**given, **rest}


def test_nobody_is_asked_about_kinds_that_declare_all_or_are_not_elastic() -> None:
    fixed = {"name": "gpu", "nodes": "gpu[1-2]"}
    full = kind("alicloud", {"instance_type": "c.large"}, cpus=2, memory_mb=900)
    assert completed(fixed, full) == ([fixed, full], [])


def test_what_nobody_knows_is_told_for_all_kinds_at_once() -> None:
    nameless, unknown = kind("libvirt", {}), {**kind("aws", {"instance_type": "c.none"}), "name": "other"}
    unlimited = {**kind("docker", {}, cpus=1), "name": "third"}
    with pytest.raises(InvalidInput) as error:
        completed(nameless, unknown, unlimited)
    text = str(error.value)
    assert text.count("; declare it.") == 5
    assert "`burst` of slurm_node_kinds has no `cpus`, and libvirt doesn't tell what the instance_type ''" in text
    assert "`other` of slurm_node_kinds has no `memory_mb`, and aws doesn't tell what the instance_type" in text
    assert "`third` of slurm_node_kinds has no `memory_mb`, and its containers have no limits" in text


@pytest.mark.parametrize(("machine", "jobs"), [(1024, 896), (2560, 2432), (4096, 3891), (100, 1)])
def test_jobs_are_promised_less_than_a_machine_has(machine, jobs) -> None:
    assert promised_mb(machine, 0.95) == jobs
