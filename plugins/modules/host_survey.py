#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_survey
author: The turnkey.hpc founders (@turnkey-hpc)
version_added: "0.1.0"
short_description: Find out what a host is like
description:
  - Finds out what M(turnkey.hpc.preflight) needs to know of a host. It needs no privilege and changes nothing.
  - What other hosts and name servers answer is waited for at the same time, and for no more than three seconds.
attributes:
  check_mode:
    support: full
    description: It only reads, so check mode makes no difference.
  diff_mode:
    support: none
    description: It changes nothing.
  idempotent:
    support: full
    description: It changes nothing.
options:
  paths:
    description: Paths whose file systems are asked for their free space.
    type: list
    elements: path
    default: [/, /var]
  users:
    description: Accounts to look for.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Login name, and name of the user's own group.
        type: str
        required: true
      uid:
        description: User id.
        type: int
        required: true
      gid:
        description: Id of the user's own group. The user id without it.
        type: int
  ports:
    description: Ports of which is told who listens there.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: Number of the port.
        type: int
        required: true
      protocol:
        description: Its protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
  targets:
    description: Where packets should get. A port on which nothing listens answers too, unless a firewall is before it.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: IPv4 address.
        type: str
        required: true
      port:
        description: Number of the port. V(0) with V(mtu).
        type: int
        default: 0
      protocol:
        description: The protocol, or V(mtu) to try packets as large as the interface sends them.
        type: str
        choices: [tcp, udp, mtu]
        default: tcp
  source:
    description: Address of the host itself from which O(targets) are tried.
    type: str
    default: ""
  names:
    description: Host names to look up.
    type: list
    elements: str
    default: []
  packages:
    description: Packages that will be needed. If one is not installed, the sources that APT has are tried.
    type: list
    elements: str
    default: []
  exports:
    description: Directories that NFS will export.
    type: list
    elements: path
    default: []
  own_files:
    description: Files of which is told whether the collection wrote them.
    type: list
    elements: path
    default: []
  kernel:
    description: Whether to ask the kernel what it offers.
    type: bool
    default: false
seealso:
  - module: turnkey.hpc.preflight
"""

EXAMPLES = r"""
- name: See what the host is like
  turnkey.hpc.host_survey:
  register: host
"""

RETURN = r"""
survey:
  description: What the host is like.
  returned: success
  type: dict
  contains:
    os:
      description: Name and version of the distribution.
      type: dict
      sample: {name: Debian, version: "12"}
    python:
      description: Version of the Python that ran the module.
      type: str
      sample: 3.11.2
    cores:
      description: Processors that a process may use.
      type: int
    memory_mb:
      description: Memory in MB.
      type: int
    disks:
      description: Each file system that holds one of O(paths), with its free space.
      type: list
      elements: dict
      sample: [{paths: [/, /var], free_mb: 15000}]
    interfaces:
      description: IPv4 addresses of each network interface. Null where the command C(ip) is missing.
      type: dict
      sample: {eth0: [10.20.0.11/24]}
    host_name:
      description: Name that the host gives itself.
      type: str
    user:
      description: Name and uid of the account that ran the module.
      type: dict
    accounts:
      description: For each of O(users), who holds its name, its uid and its gid on the host.
      type: list
      elements: dict
    mtu:
      description: Largest packet of the interface that has O(source).
      type: int
    listeners:
      description:
        - Who listens on O(ports), with protocol, port, address, user, and program. The program is empty where only
          root may see it.
      type: list
      elements: dict
    outcomes:
      description:
        - What became of each of O(targets), in their order, with C(state) and C(detail). The state is C(open),
          C(closed) (nothing listens, but packets get there), C(rejected), C(silent) or C(error), and with V(mtu)
          C(passed), C(too_big) or C(unknown).
      type: list
      elements: dict
    resolved:
      description: The IPv4 addresses of each of O(names). Null if there was no answer in time.
      type: dict
    hosts_file:
      description: The IPv4 lines of C(/etc/hosts) that the collection did not write, with C(address) and C(names).
      type: list
      elements: dict
    earlier:
      description: Domain and user authority of the cluster that the host is a node of. Empty strings if of none.
      type: dict
    own_files:
      description: Those of O(own_files) that the collection wrote.
      type: list
      elements: path
    kernel:
      description: Whether the kernel has C(nfs_client) and C(nfs_server), and is a C(container)'s. Null if not asked.
      type: dict
    exports:
      description: What keeps NFS from exporting O(exports).
      type: list
      elements: str
    missing_packages:
      description: Those of O(packages) that are not installed.
      type: list
      elements: str
    sources:
      description: The sources of packages, with C(uri), C(state) and C(detail), if a package is missing.
      type: list
      elements: dict
    seconds:
      description: How long the survey took.
      type: float
    clock:
      description: Time on the host at the end of the survey, in seconds since 1970.
      type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._host_survey import Questions, survey

PORT = {
    "port": {"type": "int", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
}
TARGET = {
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "default": 0},
    "protocol": {"type": "str", "choices": ["tcp", "udp", "mtu"], "default": "tcp"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "default": ["/", "/var"]},
            "users": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "uid": {"type": "int", "required": True},
                    "gid": {"type": "int"},
                },
            },
            "ports": {"type": "list", "elements": "dict", "default": [], "options": PORT},
            "targets": {"type": "list", "elements": "dict", "default": [], "options": TARGET},
            "source": {"type": "str", "default": ""},
            "names": {"type": "list", "elements": "str", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
            "exports": {"type": "list", "elements": "path", "default": []},
            "own_files": {"type": "list", "elements": "path", "default": []},
            "kernel": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )

    def run(argv: list[str]) -> tuple[int, str, str]:
        try:
            # Ordinary users have no sbin in their path, where some distributions keep ip.
            rc, out, err = module.run_command(argv, path_prefix="/usr/sbin:/sbin", handle_exceptions=False)
        except OSError as error:
            return 127, "", str(error)
        return rc, out, err

    module.run_command_environ_update = {"LC_ALL": "C"}
    users = [dict(user, gid=user["uid"] if user["gid"] is None else user["gid"]) for user in module.params["users"]]
    questions = Questions(**{**module.params, "users": users})
    module.exit_json(changed=False, survey=survey(run, questions))


if __name__ == "__main__":
    main()
