#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: accounts
short_description: All accounts of a cluster on a node at once
version_added: "0.1.0"
description:
  - Makes accounts with fixed ids, each with a group of its own, a home directory, public keys and, where wanted, sudo.
  - Conflicts with what the host has (a taken name, uid or gid, a missing group or directory, a home of somebody else)
    are found before anything is changed, and reported all at once.
  - Accounts have no password. They log in with keys or certificates.
  - Accounts that were made are recorded in C(/var/lib/turnkey/accounts.json), and only those are ever removed.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Reports what would be done, and all conflicts.
  diff_mode:
    support: full
    description: Shows each property of each account that differs.
  idempotent:
    support: full
    description: A second run changes nothing.
options:
  accounts:
    description:
      - The accounts.
      - An account that existed before is brought in line (comment, shell, groups, keys), and stays so.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Login name, also the name of the account's own group.
        type: str
        required: true
      uid:
        description: User id, 1000 to 59999.
        type: int
        required: true
      gid:
        description: Id of the own group. If it is not given, it is O(accounts[].uid).
        type: int
      comment:
        description: Full name.
        type: str
      groups:
        description: All supplementary groups. They exist. Without this option they are left alone.
        type: list
        elements: str
      shell:
        description: Login shell, C(/bin/bash) if not given.
        type: path
      home:
        description:
          - Home directory, C(/home/<name>) if not given. Its parent exists.
          - It is made with mode 0700 from C(/etc/skel), unless it is there already.
        type: path
      authorized_keys:
        description: All public keys that may log in. Without this option the file is left alone.
        type: list
        elements: str
      sudo:
        description: Whether the account may run everything as every user without a password.
        type: bool
        default: false
      state:
        description:
          - V(present), the account is there.
          - V(absent), it is removed if this module made it, with what it runs. What existed before stays.
        type: str
        choices: [present, absent]
        default: present
  state:
    description:
      - V(present), O(accounts) are as they say.
      - V(absent), all accounts that this module made are removed, and its sudo rules. O(accounts) is not used.
    type: str
    choices: [present, absent]
    default: present
  wipe_homes:
    description: Whether the home directories of accounts that are removed go too, with all that is in them.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Make the cluster's accounts
  turnkey.hpc.accounts:
    accounts:
      - name: alice
        uid: 2001
        comment: Alice Doe
        authorized_keys:
          - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBUAhbDfYtRXVqyHGyQ5bjRoDWPnPwqbDAfWUNgbTtXV alice@laptop
      - name: bob
        uid: 2002
        sudo: true

- name: Remove all that were made, and keep the data
  turnkey.hpc.accounts:
    state: absent

- name: Remove one of them
  turnkey.hpc.accounts:
    accounts:
      - name: bob
        uid: 2002
        state: absent
"""

RETURN = r"""
changes:
  description: What was, or would be, changed, one line each.
  returned: success
  type: list
  elements: str
  sample: ["alice: account: absent -> uid 2001, /home/alice, /bin/bash, groups: none"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._accounts import Host, apply, conflicts, parse_accounts, plan
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner

ACCOUNT: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "uid": {"type": "int", "required": True},
    "gid": {"type": "int"},
    "comment": {"type": "str"},
    "groups": {"type": "list", "elements": "str"},
    "shell": {"type": "path"},
    "home": {"type": "path"},
    "authorized_keys": {"type": "list", "elements": "str", "no_log": False},
    "sudo": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "accounts": {"type": "list", "elements": "dict", "default": [], "options": ACCOUNT},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "wipe_homes": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )

    with errors_end(module):
        host = Host(runner(module.run_command))
        wanted = module.params["state"] == "present"
        accounts = parse_accounts(module.params["accounts"]) if wanted else host.leaving()
        system = host.system(accounts)
        problems = conflicts(accounts, system)
        if problems:
            raise HpcError(
                join_problems(problems),
                "change the list of accounts, or rename, renumber or remove what is in the way on this host.",
            )
        made = host.made()
        steps = plan(accounts, system, made, module.params["wipe_homes"])
        if not module.check_mode:
            apply(host, accounts, steps, made)
    changes = [f"{step.name}: {step.what}: {step.before.strip()} -> {step.after.strip()}" for step in steps]
    result: dict[str, Any] = {"changed": bool(steps), "changes": changes}
    if module._diff:
        result["diff"] = {
            "before_header": "accounts",
            "after_header": "accounts",
            "before": "".join(f"{step.name}: {step.what}: {step.before.strip()}\n" for step in steps),
            "after": "".join(f"{step.name}: {step.what}: {step.after.strip()}\n" for step in steps),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
