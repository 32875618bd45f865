# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: libvirt
short_description: The virtual machines of a cluster
version_added: "0.1.0"
description:
  - Lists the virtual machines that M(turnkey.hpc.cluster_machines) made for one cluster on one or several hypervisors,
    with the groups from their marks.
  - The canonical groups are always defined, so a play for an empty group is no error.
  - Hosts are reached with the C(ssh_config) that M(turnkey.hpc.cluster_machines) wrote; hypervisors that aren't this
    computer are its jump hosts.
  - A host has the variable C(cluster_address) only; what hosts share is on the group C(all). The address is that of
    the lease that the network gave, else what the guest agent says, else what was seen in ARP, else the one that the
    machine was made with.
  - With a cache that is warm no hypervisor is asked. The playbooks that make and remove machines refresh it.
  - The file is called C(*libvirt.yml), or has any name that ends in C(.toml) and is TOML with the line
    C(plugin = "turnkey.hpc.libvirt").
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - libvirt-python (Python package)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
  - turnkey.hpc.machine_inventory
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [turnkey.hpc.libvirt]
  hypervisors:
    description: Hypervisors by libvirt's URIs, the same as in C(cluster_libvirt.hypervisors).
    type: list
    elements: str
    default: ["qemu:///system"]
"""

EXAMPLES = r"""
# inventories/libvirt/machines.libvirt.yml
plugin: turnkey.hpc.libvirt
cluster_name: vm
hypervisors: [qemu+ssh://admin@hv1/system, qemu+ssh://admin@hv2/system]
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/turnkey
keyed_groups:
  - key: machine_set
    prefix: set
"""

import subprocess

from ansible.errors import AnsibleParserError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt import LibvirtProvider
from ansible_collections.turnkey.hpc.plugins.plugin_utils._machine_inventory import MachineInventory, Row, row_of


def _run(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


class InventoryModule(MachineInventory):
    """Lists one cluster's virtual machines."""

    NAME = "turnkey.hpc.libvirt"
    SUFFIX = "libvirt"
    LOGIN_USER = "root"

    def fetch(self, cluster: str) -> list[Row]:
        """Ask the hypervisors."""
        place = {"hypervisors": self.get_option("hypervisors")}
        try:
            machines = LibvirtProvider.connect(place, _run).list_instances(cluster)
        except HpcError as error:
            raise AnsibleParserError(str(error)) from None  # Ansible prints every cause: it would say it twice
        return [row_of(machine) for machine in machines]
