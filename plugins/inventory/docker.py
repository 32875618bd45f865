# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: docker
short_description: The machines of a cluster that the Docker provider made
version_added: "0.1.0"
description:
  - Lists the containers that M(turnkey.hpc.cluster_machines) made for one cluster, with the groups from their labels.
  - The canonical groups are always defined, so a play for an empty group is no error.
  - Hosts are reached with the C(ssh_config) that M(turnkey.hpc.cluster_machines) wrote, through the bastion.
  - A host has the variable C(cluster_address) only; what hosts share is on the group C(all).
  - The file is called C(*docker.yml), or has any name that ends in C(.toml) and is TOML with the line
    C(plugin = "turnkey.hpc.docker").
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - docker (Python package)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
  - turnkey.hpc.machine_inventory
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [turnkey.hpc.docker]
"""

EXAMPLES = r"""
# inventories/demo/machines.docker.yml
plugin: turnkey.hpc.docker
cluster_name: demo
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/turnkey
keyed_groups:
  - key: machine_set
    prefix: set

# The same in TOML, for example in a file inv.toml:
#   plugin = "turnkey.hpc.docker"
#   cluster_name = "demo"
"""

import subprocess

from ansible.errors import AnsibleParserError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker import DockerProvider
from ansible_collections.turnkey.hpc.plugins.plugin_utils._machine_inventory import MachineInventory, Row, row_of


def _run(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


class InventoryModule(MachineInventory):
    """Lists one cluster's containers."""

    NAME = "turnkey.hpc.docker"
    SUFFIX = "docker"
    LOGIN_USER = "root"

    def fetch(self, cluster: str) -> list[Row]:
        """Ask the Docker engine."""
        try:
            return [row_of(machine) for machine in DockerProvider.connect(_run).list_instances(cluster)]
        except HpcError as error:
            raise AnsibleParserError(str(error)) from None  # Ansible prints every cause: it would say it twice
