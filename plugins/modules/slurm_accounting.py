#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_accounting
short_description: Accounts, users, QoS and limits of a Slurm cluster, as data
version_added: "0.1.0"
description:
  - Brings a cluster's part of the accounting database to what is declared, with a call of C(sacctmgr) for each group of
    equal changes, and looks afterwards whether Slurm has taken all of them.
  - Limits have the names under which C(sacctmgr) sets and shows them. A limit, a resource, an account or a QoS that
    Slurm does not know is an error before anything is written; all of them are reported at once.
  - What is not declared stays, unless O(purge) says otherwise. C(null) takes off a limit.
  - Associations with a partition are neither read nor made.
  - Runs on a host where C(sacctmgr) reaches slurmdbd, and waits until that answers.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Also where Slurm is not installed or does not answer; then everything declared is reported as new.
  diff_mode:
    support: full
    description: Shows each field that differs.
  idempotent:
    support: full
    description: A second run changes nothing.
options:
  cluster:
    description: Name of the cluster. It is registered if it is not.
    type: str
    required: true
  qos:
    description: Qualities of service.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the QoS. V(normal) is Slurm's own and can be given limits, too.
        type: str
        required: true
      limits:
        description:
          - Limits and other settings, see C(man sacctmgr), SPECIFICATIONS FOR QOS. C(MaxTRESPerUser),
            C(MaxJobsPerUser), C(MaxWallDurationPerJob), C(Priority), C(Flags), C(Preempt) and so on.
          - "Resources are dictionaries, C({cpu: 4, mem: 10G}). Times are minutes (C(GraceTime), seconds), or text like
            C('1-12:00:00'), in quotes."
        type: dict
        default: {}
  accounts:
    description: Accounts, in any order. V(root) is Slurm's own and can be given limits, too.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the account.
        type: str
        required: true
      parent:
        description: The account above it. If it is not given, it is V(root).
        type: str
      description:
        description: What it is for. If it is not given, it is left alone.
        type: str
      organization:
        description: Whose it is. If it is not given, it is left alone.
        type: str
      limits:
        description:
          - Limits and other settings, see C(man sacctmgr), GENERAL SPECIFICATIONS FOR ASSOCIATION BASED ENTITIES.
            C(Fairshare), C(GrpTRES), C(MaxJobs), C(QOS), C(DefaultQOS) and so on.
        type: dict
        default: {}
  users:
    description: Users, and the accounts that they may use.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Login name.
        type: str
        required: true
      accounts:
        description: Names of their accounts. The first is the one that they use if they say nothing.
        type: list
        elements: str
        required: true
      admin_level:
        description: What the user may do in the accounting database.
        type: str
        choices: [none, operator, administrator]
        default: none
      limits:
        description: Limits of the user in each of these accounts, of the same kinds as O(accounts[].limits).
        type: dict
        default: {}
      account_limits:
        description: Limits in single accounts, by the account's name. They go before O(users[].limits).
        type: dict
        default: {}
  purge:
    description:
      - Whether accounts, users, QoS and limits that are not declared are removed.
      - The account and the user C(root) and the QoS C(normal) stay, and where the database serves other clusters, too,
        all QoS and the names of users and accounts.
      - Slurm refuses to remove what jobs still use.
    type: bool
    default: false
  wait_seconds:
    description: How long to wait for slurmdbd.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Two groups share the cluster, and students have limits
  turnkey.hpc.slurm_accounting:
    cluster: lab
    qos:
      - name: teaching
        limits: {MaxTRESPerUser: {cpu: 8, mem: 16G}, MaxWallDurationPerJob: '02:00:00', Flags: [DenyOnLimit]}
    accounts:
      - {name: physics, organization: science, limits: {Fairshare: 60}}
      - {name: optics, parent: physics}
      - {name: course, limits: {Fairshare: 10, QOS: [teaching], DefaultQOS: teaching}}
    users:
      - {name: alice, accounts: [optics, course], admin_level: operator}
      - {name: bob, accounts: [course], limits: {MaxSubmitJobs: 20}}
"""

RETURN = r"""
changes:
  description: What was, or would be, changed, one line each.
  returned: success
  type: list
  elements: str
  sample: ["account optics: absent -> below physics", "user bob in course: MaxSubmitJobs: none -> 20"]
answered:
  description: Whether slurmdbd was asked. It is not where Slurm is not installed yet, in check mode.
  returned: success
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.accounting import (
    Accounting,
    Database,
    Wanted,
    check,
    parse,
    plan,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner

LIMITS: dict[str, Any] = {"type": "dict", "default": {}}
NAME: dict[str, Any] = {"type": "str", "required": True}
ACCOUNT: dict[str, Any] = {
    "name": NAME,
    "parent": {"type": "str"},
    "description": {"type": "str"},
    "organization": {"type": "str"},
    "limits": LIMITS,
}
USER: dict[str, Any] = {
    "name": NAME,
    "accounts": {"type": "list", "elements": "str", "required": True},
    "admin_level": {"type": "str", "choices": ["none", "operator", "administrator"], "default": "none"},
    "limits": LIMITS,
    "account_limits": {"type": "dict", "default": {}},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "cluster": NAME,
            "qos": {"type": "list", "elements": "dict", "default": [], "options": {"name": NAME, "limits": LIMITS}},
            "accounts": {"type": "list", "elements": "dict", "default": [], "options": ACCOUNT},
            "users": {"type": "list", "elements": "dict", "default": [], "options": USER},
            "purge": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    params, check_mode = module.params, module.check_mode
    database = Database(runner(module.run_command))
    with errors_end(module):
        items = parse(params["qos"], params["accounts"], params["users"])
        wanted = Wanted(params["cluster"], items, params["purge"])
        release = database.release()
        answered = release is not None and database.answers(0 if check_mode else params["wait_seconds"])
        if not answered and not check_mode:
            raise database.silence(release, params["wait_seconds"])
        found = database.read(wanted.cluster, release) if answered else Accounting(cluster=False)
        check(wanted, found, release if answered else None)
        steps = plan(wanted, found)
        if not check_mode:
            database.apply(steps, wanted, release)
    changes = [change for step in steps for change in step.changes]
    result: dict[str, Any] = {"changed": bool(steps), "changes": [str(change) for change in changes]}
    result["answered"] = answered
    if module._diff:
        result["diff"] = {
            "before_header": "accounting",
            "after_header": "accounting",
            "before": "".join(f"{change.what}: {change.before}\n" for change in changes),
            "after": "".join(f"{change.what}: {change.after}\n" for change in changes),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
