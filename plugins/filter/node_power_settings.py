# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of node-power on a controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: node_power_settings
short_description: Settings of node-power on a controller
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Returns what C(node-power) on a controller must know about elastic kinds of nodes. Everything that is wrong with
    kinds and limits is an error, told at once.
positional: _input, limits, controllers, resume_timeout, default_host
options:
  _input:
    description: The kinds, as in C(slurm_node_kinds), that have a C(provider).
    type: list
    elements: dict
    required: true
  limits:
    description: Limits by name, see the role C(elastic).
    type: dict
    default: {}
  controllers:
    description: Names of the controllers.
    type: list
    elements: str
    default: []
  resume_timeout:
    description: Slurm's C(ResumeTimeout) in seconds.
    type: int
    default: 300
  default_host:
    description: The power host of kinds that name none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show the settings
  ansible.builtin.debug:
    msg: "{{ kinds | turnkey.hpc.node_power_settings({'max_nodes': 16}, ['head'], 300, 'power') }}"
"""

RETURN = r"""
_value:
  description: The settings.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.site import controller_settings
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError


def _filter(
    kinds: Any, limits: Any = None, controllers: Any = (), resume_timeout: Any = 300, default_host: str = ""
) -> Any:
    """Return the settings; turn the collection's errors into Ansible's."""
    try:
        return controller_settings(kinds, limits or {}, controllers, float(resume_timeout), default_host)
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"node_power_settings": _filter}
