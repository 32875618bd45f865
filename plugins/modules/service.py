#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service
version_added: "0.1.0"
short_description: Lets systemd services run with the configuration that is on disk
description:
  - Enables and starts a service, and restarts it if its configuration is younger than its last start. Several that
    need each other are started in order.
  - So there is no handler that a run which is cut off could lose; the next run restarts the service.
  - Reloads systemd where a unit file was changed.
  - Records what the service was like before, and gives that back with O(state=absent).
author: The turnkey.hpc founders (@turnkey-hpc)
options:
  name:
    description: Name of the unit.
    type: str
  config:
    description: Files and directories that the service reads when it starts. What is not there does not count.
    type: list
    elements: path
    default: []
  units:
    description:
      - Several units instead of O(name), started in this order.
      - With O(state=absent) they are stopped in the reverse order.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the unit.
        type: str
        required: true
      config:
        description: As O(config), for this unit.
        type: list
        elements: path
        default: []
      kill:
        description:
          - Whether O(state=absent) also ends what outlives the unit, as jobs outlive slurmd (C(KillMode=process)).
        type: bool
        default: false
  state:
    description:
      - V(present), it is enabled and runs with this configuration.
      - V(absent), it is as it was before this module touched it, which for one that came by us is stopped and disabled.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Also on a host where the service is not installed yet.
  diff_mode:
    support: none
    description: Returns what it did instead.
  idempotent:
    support: full
    description: A service that runs with its configuration is left alone.
"""

EXAMPLES = r"""
- name: Run the time service
  turnkey.hpc.service:
    name: chrony.service
    config: [/etc/chrony/chrony.conf]

- name: Run the database before what needs it
  turnkey.hpc.service:
    units:
      - name: mariadb.service
        config: [/etc/mysql/mariadb.conf.d/90-turnkey.cnf]
      - name: slurmdbd.service
        config: [/etc/slurm/slurmdbd.conf]
"""

RETURN = r"""
actions:
  description: What was, or would be, done, as arguments of systemctl.
  type: list
  elements: str
  returned: success
  sample: [enable chrony.service, start chrony.service]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._service import (
    RECORDS,
    act,
    calls,
    look,
    newest,
    own_units,
    plan,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, load_json, runner, save_json


def apply(run: Run, units: list[dict[str, Any]], present: bool, check_mode: bool) -> list[str]:
    """Bring the units into the wanted state, and return what that took, or would take."""
    names = [unit["name"] for unit in units]
    states = look(run, names)
    missing = [f"There is no service {name!r}." for name in names if present and not states[name].exists]
    if missing and not check_mode:
        raise HpcError(join_problems(missing), "Install the package that has it first.")
    records = load_json(RECORDS)
    verbs: dict[str, list[str]] = {}
    for unit in units if present else reversed(units):
        name, config = unit["name"], unit["config"]
        before = {"enabled": True, "active": True} if present else records.get(name)
        if before is not None:
            wanted = before["enabled"], before["active"]
            verbs[name] = plan(states[name], *wanted, newest(config), own_units(config))
            if unit["kill"] and "stop" in verbs[name]:
                verbs[name].append("kill")
    todo = calls(verbs)
    if not check_mode:
        if present and todo:
            # Enabled without running: its package was installed a moment ago, with services held back.
            now = {
                name: {"enabled": states[name].enabled and states[name].active, "active": states[name].active}
                for name in names
                if verbs[name] and name not in records
            }
            save_json(RECORDS, {**records, **now})
        act(run, todo)
        if not present and set(names) & set(records):
            save_json(RECORDS, {name: state for name, state in records.items() if name not in names})
    return [" ".join(call) for call in todo]


def main() -> None:
    """Run the module."""
    config = {"type": "list", "elements": "path", "default": []}
    module = AnsibleModule(
        {
            "name": {"type": "str"},
            "config": config,
            "units": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "config": config,
                    "kill": {"type": "bool", "default": False},
                },
            },
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        mutually_exclusive=[("name", "units")],
        required_one_of=[("name", "units")],
        supports_check_mode=True,
    )
    given = module.params
    units = given["units"] if given["name"] is None else [{**given, "kill": False}]
    with errors_end(module):
        actions = apply(runner(module.run_command), units, given["state"] == "present", module.check_mode)
    module.exit_json(changed=bool(actions), actions=actions)


if __name__ == "__main__":
    main()
