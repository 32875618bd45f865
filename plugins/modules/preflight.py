#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
author: The turnkey.hpc founders (@turnkey-hpc)
version_added: "0.1.0"
short_description: Find out what would go wrong on a host
description:
  - Looks at the host without changing anything on it, and returns what would go wrong, as data. It does not fail, not
    even for a host that can't be reached, so that M(turnkey.hpc.preflight_report) can tell everything at once.
  - Nothing needs to be there on the host besides a login. It is run without C(become), and tries C(sudo) itself.
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
  supported_releases:
    description: Distributions and releases that are accepted, each as in C(Debian 12).
    type: list
    elements: str
    required: true
  min_python:
    description: Oldest version of Python that is accepted.
    type: str
    default: "3.9"
  min_cores:
    description: Least number of processors.
    type: int
    default: 1
  min_memory_mb:
    description: Least memory in MB.
    type: int
    default: 0
  min_disk_gb:
    description: Least free space in GB on each of the file systems that hold C(/) and C(/var).
    type: float
    default: 0
  min_disk_configured_gb:
    description: The same for a host that is a node of a cluster already, and so has the packages.
    type: float
    default: 0
  max_clock_skew_seconds:
    description:
      - Largest difference between the host's clock and the control node's, in seconds.
      - What the time of the call may explain is no difference.
    type: float
    default: 5
  network:
    description: Network of the cluster in CIDR notation.
    type: str
    required: true
  address:
    description: Address of the host in O(network). An interface must have it, unless O(interface) is given.
    type: str
    default: ""
  interface:
    description: Interface that must exist and have an address in O(network).
    type: str
    default: ""
  users:
    description:
      - Accounts that will be made, as in C(cluster_users). Of each, C(name), C(uid), C(gid) and C(state) are read.
      - An account that is there already with the same name and the same ids is no problem.
    type: list
    elements: dict
    default: []
  cluster_name:
    description: Name of the cluster.
    type: str
    default: ""
  domain:
    description: Domain of the cluster's nodes. A host that has another cluster's nodes in its hosts file is a problem.
    type: str
    default: ""
  authority_dir:
    description:
      - Directory of the cluster's SSH authority on the control node. A host that trusts another one is a problem.
      - Nothing is compared if it has no C(user_ca.pub).
    type: path
    default: ""
  head:
    description: Host that tries the others (128 of them at most), and that they try.
    type: str
    default: ""
  ports_free:
    description:
      - Ports that services will use. Each has C(port) and optionally C(protocol), C(service) (what to call it),
        C(hosts) (where it will run; everywhere without it), C(programs) (that may listen there already) and
        C(configured_by) (files of the collection, which show that the service is ours).
    type: list
    elements: dict
    default: []
  ports_open:
    description:
      - Ports that packets of other hosts must get to. Each has C(port) and optionally C(protocol), C(service) and
        C(hosts). Without C(hosts) it is tried on the next host of the play, and between O(head) and the others.
      - Nothing needs to listen there. A closed port answers too, unless a firewall is before it.
    type: list
    elements: dict
    default: []
  kernel_features:
    description: What the running kernel must have.
    type: list
    elements: str
    choices: [nfs_client, nfs_server]
    default: []
  exports:
    description: Directories that NFS will export.
    type: list
    elements: path
    default: []
  packages:
    description:
      - Packages that will be needed; C(a|b) is either. If one is not installed, the host's package sources must answer.
    type: list
    elements: str
    default: []
  look_up_names:
    description:
      - Whether to look up the names of nodes, which may ask a name server elsewhere. Names in C(/etc/hosts) are looked
        at all the same.
    type: bool
    default: true
seealso:
  - module: turnkey.hpc.preflight_report
  - module: turnkey.hpc.host_survey
"""

EXAMPLES = r"""
- name: Look at the host
  turnkey.hpc.preflight:
    supported_releases: [Debian 12, Debian 13]
    min_memory_mb: 3800
    network: 10.20.0.0/24
    address: "{{ ansible_host }}"
  become: false
  register: found
"""

RETURN = r"""
problems:
  description: What would go wrong.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Name of the check.
      type: str
      sample: memory
    problem:
      description: What is, with the value.
      type: str
      sample: 1968 MB of memory, at least 3800 MB wanted
    remedy:
      description: What to do about it.
      type: str
probes:
  description: What the host tried, with C(peer), C(address), C(port), C(protocol), C(service), C(state) and C(detail).
  returned: always
  type: list
  elements: dict
address:
  description: The value of O(address).
  returned: always
  type: str
survey:
  description: What the host is like, as M(turnkey.hpc.host_survey) tells it. Empty for a host that did not answer.
  returned: always
  type: dict
"""
