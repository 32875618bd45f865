# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: hostlist_fold
author: The turnkey.hpc founders (@turnkey-hpc)
version_added: "0.1.0"
short_description: Fold host names into one host list
description:
  - Turns names into a host list as Slurm writes it, such as C(node[1-3,7]).
  - The names are sorted naturally, duplicates are dropped, leading zeros are kept.
positional: _input
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Name the nodes of a partition
  ansible.builtin.debug:
    msg: "Nodes={{ ['node1', 'node2', 'node3', 'node7'] | turnkey.hpc.hostlist_fold }}"
  # Nodes=node[1-3,7]
"""

RETURN = r"""
_value:
  description: The host list.
  type: str
"""

from collections.abc import Callable, Iterable

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import fold


def hostlist_fold(names: Iterable[str]) -> str:
    """Fold ``names`` into one host list."""
    if isinstance(names, str):
        raise AnsibleFilterError(f"hostlist_fold got the text {names!r}. Remedy: give it a list of names.")
    try:
        return str(fold(str(name) for name in names))
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter hostlist_fold."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Name the filter."""
        return {"hostlist_fold": hostlist_fold}
