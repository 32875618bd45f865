# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: cloud
short_description: The machines of a cluster in a cloud
version_added: "0.1.0"
description:
  - Lists the machines that M(turnkey.hpc.cluster_machines) made for one cluster in a cloud, with the groups from their
    tags.
  - The canonical groups are always defined, so a play for an empty group is no error.
  - Hosts are reached with the C(ssh_config) that M(turnkey.hpc.cluster_machines) wrote; it has the bastion as the jump
    host of all others, and the user to log in as.
  - A host has the variable C(cluster_address) only; what hosts share is on the group C(all).
  - With a cache that is warm nothing is asked over the network. The playbooks that make and remove machines refresh it.
  - Credentials come from where the cloud's own tools look for them (environment, profile, role of the instance).
  - The file is called C(*cloud.yml), or has any name that ends in C(.toml) and is TOML with the line
    C(plugin = "turnkey.hpc.cloud").
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - boto3 (Python package), for O(provider=aws)
  - alibabacloud_ecs20140526 and alibabacloud_vpc20160428 (Python packages), for O(provider=alicloud)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
  - turnkey.hpc.machine_inventory
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [turnkey.hpc.cloud]
  provider:
    description: The cloud.
    type: str
    required: true
    choices: [alicloud, aws]
  region:
    description: Region, as the cloud calls it.
    type: str
    required: true
"""

EXAMPLES = r"""
# inventories/aws/machines.cloud.yml
plugin: turnkey.hpc.cloud
provider: aws
region: eu-central-1
cluster_name: lab
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/turnkey
keyed_groups:
  - key: machine_set
    prefix: set
"""

from ansible.errors import AnsibleParserError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import connect_cloud
from ansible_collections.turnkey.hpc.plugins.plugin_utils._machine_inventory import MachineInventory, Row, row_of


class InventoryModule(MachineInventory):
    """Lists one cluster's machines in a cloud."""

    NAME = "turnkey.hpc.cloud"
    SUFFIX = "cloud"

    def fetch(self, cluster: str) -> list[Row]:
        """Ask the cloud."""
        place = {"region": self.get_option("region")}
        try:
            machines = connect_cloud(self.get_option("provider"), place).list_instances(cluster)
        except HpcError as error:
            raise AnsibleParserError(str(error)) from None  # Ansible prints every cause: it would say it twice
        return [row_of(machine) for machine in machines]
