# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines for /etc/hosts."""

from __future__ import annotations

DOCUMENTATION = r"""
name: hosts_lines
short_description: Lines for /etc/hosts
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Makes one line a node, with its address, its name in the domain and its short name, sorted by address.
  - The address of a node is its variable C(cluster_address), else C(ansible_host) if that is an address.
  - A node without address, and an address or name that two nodes share, are errors. All are reported at once.
  - Reading variables of other hosts is slow. Use it once a run and not on every host.
positional: _input, hostvars, domain
options:
  _input:
    description: Inventory names of the nodes.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
  domain:
    description: Domain of the nodes. A node whose inventory name has dots keeps its own.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Fold the nodes into the lines of a hosts file, once for all
  ansible.builtin.set_fact:
    __baseline_hosts_block: "{{ cluster_members | turnkey.hpc.hosts_lines(hostvars, cluster_domain) }}"
  run_once: true
"""

RETURN = r"""
_value:
  description: The lines.
  type: str
  sample: |
    10.0.0.10 head.demo.internal head
    10.0.0.11 node1.demo.internal node1
"""

import re
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, join_problems

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


def _address(variables: Mapping[str, Any]) -> IPv4Address | IPv6Address | None:
    """Return the address of a node, if its variables tell it."""
    for key in ("cluster_address", "ansible_host", "ansible_ssh_host"):
        value = variables.get(key)
        if value is not None:
            try:
                return ip_address(str(value))
            except ValueError:
                return None
    return None


def hosts_lines(members: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], domain: str) -> str:
    """Return one line a node for /etc/hosts."""
    problems: list[str] = []
    nodes: list[tuple[IPv4Address | IPv6Address, str]] = []
    addresses: dict[IPv4Address | IPv6Address, str] = {}
    names: dict[str, str] = {}
    for member in members:
        name = str(member)
        if len(name) > 253 or not all(LABEL.fullmatch(label) for label in name.split(".")):
            problems.append(f"'{name}' can't be a host name: rename it (a-z, 0-9 and '-').")
            continue
        short = name.split(".", maxsplit=1)[0].lower()
        if short in names:
            problems.append(f"{name} and {names[short]} have the same name '{short}': rename one.")
            continue
        names[short] = name
        address = _address(hostvars[member]) if member in hostvars else None
        if address is None:
            problems.append(f"The address of {name} in the cluster's network is not known: set cluster_address for it.")
        elif address in addresses:
            problems.append(f"{name} and {addresses[address]} have the same address {address}: set cluster_address.")
        else:
            addresses[address] = name
            nodes.append((address, name))
    if problems:
        raise InvalidInput(join_problems(problems))
    nodes.sort(key=lambda node: (node[0].version, int(node[0])))
    return "".join(
        f"{address} {name} {name.split('.', maxsplit=1)[0]}\n" if "." in name else f"{address} {name}.{domain} {name}\n"
        for address, name in nodes
    )


def _filter(members: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], domain: str) -> str:
    """Turn the collection's errors into Ansible's."""
    try:
        return hosts_lines(members, hostvars, domain)
    except InvalidInput as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"hosts_lines": _filter}
