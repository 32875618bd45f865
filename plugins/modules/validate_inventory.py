#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: validate_inventory
author: The turnkey.hpc founders (@turnkey-hpc)
version_added: "0.1.0"
short_description: Check the inventory as a whole
description:
  - Checks the variables and groups of all hosts of the inventory on the control node, without asking any host, and
    fails with one report of everything that is wrong.
  - It looks at the name and the network of the cluster, at names and addresses of the hosts, at groups that a cluster
    can't do without, at the accounts, and at every variable.
  - A variable must be in the argument spec of a role, its value must fit, and a role that reads it must run on one of
    the hosts that have it. What is set for all hosts may be read anywhere. What a role needs must be set.
  - Free are variables of Ansible that are not almost one of its connection variables, those that begin with C(site_),
    and those that C(cluster_extra_variables) lists. So are variables of other names that are in no file of the
    inventory, since plugins, plays and the command line make them.
  - Problems are told with file and line where the inventory's own files set the variable.
  - Old names, as in C(my_iface), are reported with the new one. Files that P(turnkey.hpc.static#inventory) reads may
    use them.
  - Values that need facts are not looked at. A template that gives other values for other hosts is tried for one of
    them.
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
options: {}
seealso:
  - module: turnkey.hpc.preflight
"""

EXAMPLES = r"""
- name: Check the inventory
  turnkey.hpc.validate_inventory:
  run_once: true
"""

RETURN = r"""
msg:
  description: The first line of the report. All of it is displayed on stderr.
  returned: failure
  type: str
"""
