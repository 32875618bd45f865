# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that completes a list of NFS exports."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nfs_exports
short_description: Complete and check a list of NFS exports
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Gives every export all of its keys, a number, and its directory in the shape that M(turnkey.hpc.config_files) takes.
  - All that is wrong with the list is reported at once.
positional: network, mode
options:
  _input:
    description:
      - Exports, each with C(path).
      - Optional are C(clients), C(read_only), C(root_squash), C(options) and C(mode).
    type: list
    elements: dict
    required: true
  network:
    description: Who may mount an export that names no clients.
    type: str
    required: true
  mode:
    description: Mode of an export's directory that names none.
    type: str
    default: "1777"
"""

EXAMPLES = r"""
- name: Show the exports
  ansible.builtin.debug:
    msg: "{{ [{'path': '/shared'}] | turnkey.hpc.nfs_exports('10.20.0.0/24') }}"
"""

RETURN = r"""
_value:
  description:
    - The exports, each with C(id), C(path), C(clients), C(read_only), C(root_squash), C(options) and C(directory).
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._nfs import normalize_exports


def nfs_exports(exports: list[dict[str, Any]], network: str, mode: str = "1777") -> list[dict[str, Any]]:
    """Return ``exports`` complete and checked."""
    try:
        complete: list[dict[str, Any]] = normalize_exports(exports, network, mode)
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error
    return complete


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter under its name."""
        return {"nfs_exports": nfs_exports}
