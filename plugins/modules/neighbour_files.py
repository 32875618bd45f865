#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: neighbour_files
short_description: The same configuration files on several other hosts at once
version_added: "0.1.0"
description:
  - Writes files as M(turnkey.hpc.config_files) does, on hosts that need not be part of the play, for example because
    C(--limit) leaves them out. One task tells them all, several at a time, with one module run for each.
  - The last of O(hosts) is asked first and written last. If it has the files already, all others have been told by an
    earlier run, and are left alone.
  - A host that doesn't answer is no error. It is named in a warning.
  - Each host is reached with its own connection variables from the inventory.
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Says which hosts would get the files.
  diff_mode:
    support: full
    description: Shows each file that differs.
  idempotent:
    support: full
    description: Files are written only if they differ.
options:
  hosts:
    description: Names of hosts of the inventory. An empty list means that nothing is done.
    type: list
    elements: str
    required: true
  files:
    description:
      - As for M(turnkey.hpc.config_files). In C(replaces), C(@name@) stands for the name of the host.
      - Templates and texts are the same for all hosts. Their variables are those of the host of the task.
    type: list
    elements: dict
    required: true
seealso:
  - module: turnkey.hpc.config_files
"""

EXAMPLES = r"""
- name: Tell the nodes that this run leaves out
  turnkey.hpc.neighbour_files:
    hosts: "{{ groups['all'] | difference(ansible_play_hosts_all) | sort }}"
    files:
      - path: /etc/hosts
        block: "{{ lines }}"
        marker: my hosts
  run_once: true
"""

RETURN = r"""
asked:
  description: Hosts on which the module ran.
  returned: success
  type: list
  elements: str
changed_hosts:
  description: Hosts that got something new.
  returned: success
  type: list
  elements: str
unreachable_hosts:
  description: Hosts that don't answer.
  returned: success
  type: list
  elements: str
"""
