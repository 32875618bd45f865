# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that folds the names and the network of a cluster into SSH patterns."""

from __future__ import annotations

DOCUMENTATION = r"""
name: ssh_host_patterns
short_description: Fold the names and the network of a cluster into SSH patterns
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Turns the names of all nodes and the network of a cluster into the few patterns that C(Host) lines of
    C(ssh_config) and C(known_hosts) files understand, so that neither file lists the nodes.
  - Each digit of a name becomes C(?). The number at the end of a name may have one to four digits, or as many as it
    has; C(node1) alone gives C(node?), C(node??), C(node???) and C(node????), so that the patterns stay the same when
    the cluster grows.
  - The network is covered exactly; octets that may have any value become C(*).
positional: domain, network
options:
  _input:
    description: The names of all nodes.
    type: list
    elements: str
    required: true
  domain:
    description: The domain of the nodes; each name is also matched with it. Empty for none.
    type: str
    default: ""
  network:
    description: The IPv4 network of the nodes in CIDR notation. Empty for none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Patterns of a cluster
  ansible.builtin.debug:
    msg: "{{ ['head', 'node1', 'node2'] | turnkey.hpc.ssh_host_patterns('demo.internal', '10.213.77.0/24') }}"
  # => ['10.213.77.*', 'head', 'head.demo.internal', 'node?', 'node?.demo.internal', 'node??', ...]
"""

RETURN = r"""
_value:
  description: The patterns, sorted.
  type: list
  elements: str
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_identity import fold_host_patterns


def ssh_host_patterns(members: list[str], domain: str = "", network: str = "") -> list[str]:
    """Return the patterns of the nodes called ``members`` in ``domain`` and ``network``."""
    if isinstance(members, str) or not isinstance(members, (list, tuple)):
        raise AnsibleFilterError(f"ssh_host_patterns needs a list of names, not {members!r}.")
    try:
        patterns: list[str] = fold_host_patterns([str(name) for name in members], str(domain or ""), str(network or ""))
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error
    return patterns


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"ssh_host_patterns": ssh_host_patterns}
