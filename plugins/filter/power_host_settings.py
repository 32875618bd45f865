# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of node-power on a power host."""

from __future__ import annotations

DOCUMENTATION = r"""
name: power_host_settings
short_description: Settings of node-power on a host that makes machines
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Returns what C(node-power serve) must know about the machines that one host makes.
positional: _input, host, cluster, authorized_key, boot_seconds, default_host
options:
  _input:
    description: The kinds, as in C(slurm_node_kinds), that have a C(provider).
    type: list
    elements: dict
    required: true
  host:
    description: The power host. Kinds of other hosts are left out.
    type: str
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  authorized_key:
    description: Public key with which the controller logs in to new machines.
    type: str
    required: true
  boot_seconds:
    description: How long a machine may take until it accepts logins.
    type: int
    default: 240
  default_host:
    description: The power host of kinds that name none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the settings
  ansible.builtin.debug:
    msg: "{{ kinds | turnkey.hpc.power_host_settings('power', 'lab', 'ssh-ed25519 AAAA...', 240, 'power') }}"
"""

RETURN = r"""
_value:
  description: The settings.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.site import host_settings
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError


def _filter(kinds: Any, host: str, cluster: str, key: str, boot_seconds: Any = 240, default_host: str = "") -> Any:
    """Return the settings; turn the collection's errors into Ansible's."""
    try:
        return host_settings(kinds, str(host), str(cluster), str(key).strip(), float(boot_seconds), str(default_host))
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"power_host_settings": _filter}
