# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of Slurm's configuration a running slurmd notices only when it is restarted."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slurm_fingerprint
short_description: A text that changes when slurmd must be restarted
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Nodes get their configuration from the controllers, and notice most changes without being restarted. This filter
    makes a short text of just those keys for which they have to be. Written into a file of the node's service, it tells
    M(turnkey.hpc.service) when to restart slurmd, without a message from host to host.
positional: _input, release
options:
  _input:
    description: The options C(defaults), C(owned) and C(options) of M(turnkey.hpc.slurm_config), in this order.
    type: list
    elements: dict
    required: true
  release:
    description: Release of Slurm.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Restart slurmd when it must be
  turnkey.hpc.config_files:
    files:
      - path: /etc/default/slurmd
        content: |
          # Restarted when this changes: {{ [defaults, owned, options] | turnkey.hpc.slurm_fingerprint('22.05') }}
          SLURMD_OPTIONS="--conf-server head:6817"
"""

RETURN = r"""
_value:
  description: Sixteen hexadecimal digits.
  type: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.config import Layers, fingerprint
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import release_of


def _filter(layers: Sequence[Mapping[str, Any]], release: str) -> str:
    """Return the fingerprint; turn the collection's errors into Ansible's."""
    try:
        return fingerprint(Layers(*layers), release_of(str(release)))
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"slurm_fingerprint": _filter}
