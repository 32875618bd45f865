#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_report
author: The turnkey.hpc founders (@turnkey-hpc)
version_added: "0.1.0"
short_description: Report over all hosts what would go wrong
description:
  - Gathers what M(turnkey.hpc.preflight) found on each host, compares names and addresses between hosts, judges what
    the hosts saw of each other, and fails with one table if anything is wrong. The same problem on many hosts is one
    line.
  - Run it once, not once a host.
attributes:
  check_mode:
    support: full
    description: It changes nothing, so check mode makes no difference.
  diff_mode:
    support: none
    description: It changes nothing.
  idempotent:
    support: full
    description: It changes nothing.
options:
  hosts:
    description: Names of the hosts to report about.
    type: list
    elements: str
    required: true
  variable:
    description: Name of the variable in which each host's result was registered.
    type: str
    required: true
  domain:
    description: Domain of the cluster's nodes.
    type: str
    default: ""
  ignore:
    description:
      - Checks whose problems don't count. The report says which they are, and what they would have told.
      - The checks are C(reachable), C(python), C(survey), C(os), C(kernel), C(sudo), C(cores), C(memory), C(disk),
        C(export), C(host_name), C(address), C(interface), C(names), C(clock), C(accounts), C(leftovers),
        C(ports_free), C(ports_open), C(mtu), C(dns) and C(sources).
    type: list
    elements: str
    default: []
seealso:
  - module: turnkey.hpc.preflight
"""

EXAMPLES = r"""
- name: Report what would go wrong
  turnkey.hpc.preflight_report:
    hosts: "{{ ansible_play_hosts_all }}"
    variable: found
    ignore: [memory]
  run_once: true
"""

RETURN = r"""
msg:
  description: The first line of the report. All of it is displayed on stderr.
  returned: failure
  type: str
"""
