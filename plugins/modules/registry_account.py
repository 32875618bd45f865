#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_account
version_added: "0.1.0"
short_description: The account of a container registry
description:
  - Writes the file with the one account of a container registry. The password is hashed with bcrypt, and is in no
    argument list.
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - htpasswd (Debian's package apache2-utils) on the host
attributes:
  check_mode:
    support: full
    description: Also on a host where htpasswd is not installed yet.
  diff_mode:
    support: none
    description: There is nothing to show but a hash.
  idempotent:
    support: full
    description: A hash that fits the password stays.
options:
  path:
    description: The file. Its directory exists.
    type: path
    required: true
  name:
    description: Name of the account.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  group:
    description: Group that may read the file.
    type: str
    default: root
"""

EXAMPLES = r"""
- name: Set the password of the registry
  turnkey.hpc.registry_account:
    path: /etc/docker/registry/htpasswd
    name: turnkey
    password: "{{ lookup('ansible.builtin.password', '.secrets/container_registry/password', length=32) }}"
    group: docker-registry
"""

RETURN = "{}"

import grp
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._registry import account_line
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner, write_atomically


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "path": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "group": {"type": "str", "default": "root"},
        },
        supports_check_mode=True,
    )
    given = module.params
    path = Path(given["path"])
    run = runner(module.run_command)
    with errors_end(module):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if module.check_mode and not before:
            module.exit_json(changed=True)
        after = account_line(run, before, given["name"], given["password"], path)
        if after != before and not module.check_mode:
            try:
                group = grp.getgrnam(given["group"]).gr_gid
            except KeyError:
                raise HpcError(f"There is no group {given['group']!r}.", "name one of this host's groups.") from None
            write_atomically(path, after.encode(), 0o640, (0, group))
    module.exit_json(changed=after != before)


if __name__ == "__main__":
    main()
