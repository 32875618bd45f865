# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: hostlist_expand
author: The turnkey.hpc founders (@turnkey-hpc)
version_added: "0.1.0"
short_description: Expand a host list into host names
description:
  - Turns a host list as Slurm writes it, such as C(node[1-3,7]), into a list of names, in its order.
  - Several pairs of brackets in a name are multiplied, and leading zeros are kept.
positional: _input
options:
  _input:
    description: The host list.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: List the nodes of a partition
  ansible.builtin.debug:
    msg: "{{ 'rack[1-2]node[08-10],login1' | turnkey.hpc.hostlist_expand }}"
"""

RETURN = r"""
_value:
  description: The names of the hosts.
  type: list
  elements: str
"""

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand


def hostlist_expand(text: str) -> list[str]:
    """Expand the host list ``text`` into names."""
    if not isinstance(text, str):
        raise AnsibleFilterError(f"hostlist_expand got {text!r}. Remedy: give it a text such as 'node[1-3]'.")
    try:
        return list(expand(text))
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter hostlist_expand."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """Name the filter."""
        return {"hostlist_expand": hostlist_expand}
