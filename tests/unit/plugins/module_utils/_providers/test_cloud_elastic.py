# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a power host that makes machines in a cloud; tests/cloud/test_elastic_nodes.py has the machines."""

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud_elastic import parse_nodes, timing_for

KIND = {
    "name": "burst",
    "nodes": "b[1-3]",
    "first_address": "10.20.0.200",
    "image": "node-*",
    "instance_type": "c7i.large",
    "root_gb": 40,
    "spot": True,
}
DATA = {
    "cluster": "lab",
    "provider": "aws",
    "network": "10.20.0.0/24",
    "authorized_key": "ssh-ed25519 AAAA",
    "cloud": {"region": "eu-central-1", "ssh_from": ["203.0.113.7/32"]},
    "kinds": [KIND],
}


def test_nodes_are_private_machines_of_their_cluster_at_their_addresses():
    spec = parse_nodes(DATA)
    assert [(machine.name, machine.address) for machine in spec.machines] == [
        ("b1", "10.20.0.200"),
        ("b2", "10.20.0.201"),
        ("b3", "10.20.0.202"),
    ]
    machine = spec.machines[0]
    assert (machine.subnet, machine.bastion, machine.spot, machine.root_gb) == ("private", False, True, 40)
    assert spec.admin_public_key == "ssh-ed25519 AAAA"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"network": "10.20.0.1/24"}, "network:"),
        ({"provider": "docker"}, "'docker' is no cloud"),
        ({"cloud": {"region": "Frankfurt", "ssh_from": ["203.0.113.7/32"]}}, "'Frankfurt' is not a region"),
        ({"kinds": [{**KIND, "instance_type": ""}]}, "instance_type is missing"),
        ({"kinds": [{**KIND, "image": ""}]}, "has no image"),
        ({"kinds": [{**KIND, "first_address": "10.20.0.20"}]}, "which is not in 10.20.0.128/25"),
        ({"kinds": [{**KIND, "nodes": "b[1-"}]}, "kind 'burst'"),
    ],
)
def test_settings_that_cannot_be_used_are_told(data, said):
    with pytest.raises(InvalidInput) as error:
        parse_nodes({**DATA, **data})
    assert said in str(error.value)


def test_patience_ends_before_slurms():
    timing = timing_for(240)
    assert max(timing.throttle_seconds, timing.conflict_seconds, timing.visible_seconds) <= 120
