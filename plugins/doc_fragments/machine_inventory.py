# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventories of machines that a provider made have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Options that plugin_utils/_machine_inventory.py reads."""

    DOCUMENTATION = r"""
options:
  cluster_name:
    description: Name of the cluster.
    type: str
    required: true
  access_dir:
    description:
      - Directory with the C(ssh_config), as given to M(turnkey.hpc.cluster_machines). Relative to the inventory file.
      - The directory above it becomes C(cluster_secrets_dir).
    type: str
    default: .secrets/access
  include_stopped:
    description: Whether machines that don't run are hosts too.
    type: bool
    default: false
notes:
  - O(compose), O(groups) and O(keyed_groups) see the variables C(machine_name), C(machine_address), C(machine_set),
    C(machine_groups) and C(machine_running). They become no host variables.
"""
