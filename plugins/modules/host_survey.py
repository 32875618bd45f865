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
  - Reads what M(turnkey.hpc.preflight) needs to know of a host. It needs no privilege and changes nothing.
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
    seconds:
      description: How long the survey took.
      type: float
    clock:
      description: Time on the host at the end of the survey, in seconds since 1970.
      type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._host_survey import survey


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
    module.exit_json(changed=False, survey=survey(run, module.params["paths"], users))


if __name__ == "__main__":
    main()
