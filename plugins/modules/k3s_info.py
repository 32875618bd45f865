#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_info
short_description: What a host's k3s is, and whether the host can run one
version_added: "0.1.0"
description:
  - Tells the installed version, and whether the host is a member of a cluster.
  - Fails with all that keeps the host from running k3s.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Changes nothing.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Changes nothing.
options:
  work_dir:
    description: Data directory of k3s.
    type: path
    default: /var/lib/rancher/k3s
  token:
    description:
      - The secret that the cluster shall have. A server that has another one is an error, since its data is encrypted
        with it.
      - Without it, that is not checked.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: See whether the host is a server of a cluster already
  turnkey.hpc.k3s_info:
  register: found
"""

RETURN = r"""
version:
  description: Installed version, or nothing.
  returned: success
  type: str
  sample: v1.34.2+k3s1
member:
  description: Whether it is a server with data of a cluster.
  returned: success
  type: bool
joined:
  description: Whether it joined, or shall join, a cluster that another server founded.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.host import Host
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "work_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "token": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    host = Host(runner(module.run_command), module.params["work_dir"])
    with errors_end(module):
        seen = host.look(module.params["token"])
        problems = host.problems()
        if not seen.secret_fits:
            problems.append(
                "This server's data is encrypted with another k3s_token. Remedy: give that one "
                "back (it ends server/token in its data directory), or change it with `k3s token rotate`."
            )
        host.refuse_if_any(problems)
    module.exit_json(changed=False, version=seen.version, member=seen.member, joined=seen.joined)


if __name__ == "__main__":
    main()
