# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration files of k3s from the variables of its role."""

from __future__ import annotations

DOCUMENTATION = r"""
name: k3s_files
short_description: The configuration files of k3s, checked
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Makes what is in C(config.yaml), C(config.yaml.d/10-join.yaml), C(config.yaml.d/20-node.yaml) and
    C(registries.yaml) of a host from the variables of role C(k3s). All that is wrong with them is one error.
options:
  _input:
    description: The values of the role's variables, as in the example.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what an agent would be configured with
  ansible.builtin.debug:
    msg: "{{ settings | turnkey.hpc.k3s_files }}"
  vars:
    settings:
      part: agent
      name: node1
      address: 10.0.0.11
      interface: eth0
      version: v1.34.2+k3s1
      servers: [head]
      api_address: ""
      joined: false
      join_url: https://head:6443
      join_token: "{{ site_full_token }}"
      token: "{{ site_token }}"
      agent_token: "{{ site_agent_token }}"
      etcd: false
      tls_sans: []
      disable: []
      flannel_backend: vxlan
      secrets_encryption: true
      snapshot_schedule: "0 */12 * * *"
      snapshot_keep: 5
      registries: {}
      labels: {}
      taints: []
      default_runtime: ""
      work_dir: /var/lib/rancher/k3s
      extra_config: {}
"""

RETURN = r"""
_value:
  description: The content of each file under C(config), C(join), C(node) and C(registries).
  type: dict
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.config import build_files


def _filter(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the files; turn the collection's errors into Ansible's."""
    try:
        return build_files(given)
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"k3s_files": _filter}
