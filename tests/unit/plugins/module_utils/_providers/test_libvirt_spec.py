# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_spec import (
    Kind,
    hypervisor_problems,
    parse_libvirt,
)

SMALL = {"small": {"vcpus": 1, "memory_mb": 512}}
HEAD = {"name": "head", "image": "/img", "instance_type": "small", "bastion": True}


def expanded(libvirt=None, **head):
    given = {
        "provider": "libvirt",
        "cluster_name": "lab",
        "network": "10.97.11.0/24",
        "machine_sets": [{**HEAD, **head}],
        "libvirt": {"kinds": SMALL, **(libvirt or {})},
    }
    return expand_spec(given)


def test_without_options_there_is_one_hypervisor_and_a_network_of_the_clusters_own():
    spec = expanded().libvirt
    assert (spec.hypervisors, spec.network, spec.network_mode) == (("qemu:///system",), "", "nat")
    assert (spec.accelerator, spec.spread, spec.directory) == ("auto", "memory", "/var/lib/libvirt/images")


def test_another_provider_has_no_virtual_machines():
    assert parse_libvirt("docker", {"kinds": {"": {}}}, []) is None


def test_a_kind_is_data():
    gpu = '<hostdev mode="subsystem" type="pci"/>'
    options = {"vcpus": "8", "memory_mb": 4096, "disk_gb": 40, "cpu_model": "EPYC", "hugepages": True, "devices": gpu}
    kind = expanded({"kinds": {**SMALL, "gpu": options}}).libvirt.kinds["gpu"]
    assert kind == Kind(8, 4096, 40, "EPYC", True, gpu)
    assert Kind(1, 512).attributes() == {"vcpus": 1, "memory_mb": 512}


@pytest.mark.parametrize(
    ("libvirt", "problem"),
    [
        ({"hypervisors": ["qemu:///session"]}, "hypervisor 'qemu:///session' can't be used"),
        ({"hypervisors": ["qemu:///system", "qemu:///system"], "network": "n"}, "lists one twice"),
        ({"hypervisors": ["qemu:///system", "qemu+ssh://h/system"]}, "cluster_libvirt.network is missing"),
        ({"network": "a b"}, "'a b' is not a name"),
        ({"network_mode": "open"}, "cluster_libvirt.network_mode 'open' is unknown: give one of nat, isolated"),
        ({"directory": "/a/../b"}, "'/a/../b' is not a plain absolute path"),
        ({"directory": "images"}, "'images' is not a plain absolute path"),
        ({"accelerator": "hax"}, "cluster_libvirt.accelerator 'hax' is unknown"),
        ({"spread": "luck"}, "cluster_libvirt.spread 'luck' is unknown"),
        ({"user_data": "echo hello"}, "begins with 'echo hello'"),
        ({"kinds": {**SMALL, "x": {"vcpus": 0, "memory_mb": 512}}}, "kinds.x: vcpus is 0: give a number of 1 or more"),
        ({"kinds": {**SMALL, "x": {"vcpus": 1}}}, "kinds.x: memory_mb is None: give a number of 128 or more"),
        ({"kinds": {**SMALL, "x": {"vcpus": 1, "memory_mb": "much"}}}, "memory_mb is 'much'"),
        ({"kinds": {**SMALL, "x": {"vcpus": 1, "memory_mb": 512, "ram": 1}}}, "'ram' is no option of a kind"),
        ({"kinds": {**SMALL, "x": {"vcpus": 1, "memory_mb": 512, "cpu_model": "<x>"}}}, "cpu_model '<x>' is no name"),
        ({"kinds": {**SMALL, "x": {"vcpus": 1, "memory_mb": 512, "devices": "</devices>"}}}, "devices is not XML"),
    ],
)
def test_what_cannot_be_used_is_named(libvirt, problem):
    with pytest.raises(InvalidInput) as failure:
        expanded(libvirt)
    assert problem in str(failure.value)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        ({"instance_type": ""}, "instance_type is missing: give a kind of cluster_libvirt.kinds (small)"),
        ({"instance_type": "big"}, "'big' is no kind of cluster_libvirt.kinds: there is small"),
        ({"memory_mb": 512}, "memory_mb is not for libvirt"),
        ({"root_gb": 5}, "root_gb is not for libvirt"),
        ({"volumes": [{"name": "v", "path": "/v"}]}, "volumes are not for libvirt"),
        ({"image": "turnkey/node"}, "'turnkey/node' is not a path"),
    ],
)
def test_what_a_set_cannot_have_is_named(head, problem):
    with pytest.raises(InvalidInput) as failure:
        expanded(**head)
    assert problem in str(failure.value)


@pytest.mark.parametrize(
    ("uri", "right"),
    [
        ("qemu:///system", True),
        ("qemu+ssh://hv1/system", True),
        ("qemu+ssh://admin@hv1:2222/system", True),
        ("qemu://hv1/system", False),
        ("qemu+ssh:///system", False),
        ("qemu+ssh://hv1/session", False),
        ("qemu+ssh://a:secret@hv1/system", False),
        ("qemu+ssh://hv1/system?no_verify=1", False),
        ("qemu+ssh://hv1/system?command=/tmp/x", False),
        ("qemu+tcp://hv1/system", False),
        ("test:///default", False),
    ],
)
def test_hypervisors_are_reached_here_or_by_ssh_with_all_its_checks(uri, right):
    assert (hypervisor_problems(uri) == []) is right
