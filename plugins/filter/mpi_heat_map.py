# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter that makes a picture of the check mpi_network."""

from __future__ import annotations

DOCUMENTATION = r"""
name: mpi_heat_map
short_description: Draw latency and bandwidth between all nodes as SVG
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Draws a square of hosts for latency and one for bandwidth.
    The darker a cell, the worse its link compared to the median. A slow one has a frame.
options:
  _input:
    description: The detail of the check C(mpi_network) in a report of role P(turnkey.hpc.verify#role).
    type: dict
    required: true
  title:
    description: Heading of the picture.
    type: str
    default: MPI between all nodes
"""

EXAMPLES = r"""
- name: Draw the network
  ansible.builtin.copy:
    dest: network.svg
    content: "{{ check.detail | turnkey.hpc.mpi_heat_map('lab') }}"
    mode: "0644"
  vars:
    check: "{{ report.checks | selectattr('name', 'equalto', 'mpi_network') | first }}"
"""

RETURN = r"""
_value:
  description: Text of the SVG file.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._mpi_network import heat_map


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter under its name."""
        return {"mpi_heat_map": heat_map}
