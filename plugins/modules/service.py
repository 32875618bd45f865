#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: service
version_added: "0.1.0"
short_description: Lets a systemd service run with the configuration that is on disk
description:
  - Enables and starts a service, and restarts it if its configuration is younger than its last start.
  - So there is no handler that a run which is cut off could lose; the next run restarts the service.
  - Reloads systemd where a unit file was changed.
  - Records what the service was like before, and gives that back with O(state=absent).
author: The turnkey.hpc founders (@turnkey-hpc)
options:
  name:
    description: Name of the unit.
    type: str
    required: true
  config:
    description: Files and directories that the service reads when it starts. What is not there does not count.
    type: list
    elements: path
    default: []
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
"""

RETURN = r"""
actions:
  description: What was, or would be, done, as verbs of systemctl.
  type: list
  elements: str
  returned: success
  sample: [enable, start]
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._service import (
    RECORDS,
    act,
    look,
    newest,
    own_units,
    plan,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._state import load_json, runner, save_json


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "name": {"type": "str", "required": True},
            "config": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    run = runner(module.run_command)
    name, present, config = module.params["name"], module.params["state"] == "present", module.params["config"]
    try:
        status = look(run, name)
        records = load_json(RECORDS)
        before = records.get(name)
        if present and not status.exists and not module.check_mode:
            raise HpcError(f"There is no service {name!r}.", "Install the package that has it first.")
        if present:
            verbs = plan(status, True, True, newest(config), own_units(config))
        elif before is None:
            verbs = []
        else:
            verbs = plan(status, before["enabled"], before["active"], newest(config), own_units(config))
        if not module.check_mode:
            if present and verbs and before is None:
                # Enabled without running: its package was installed a moment ago, with services held back.
                enabled = status.enabled and status.active
                save_json(RECORDS, {**records, name: {"enabled": enabled, "active": status.active}})
            act(run, name, verbs)
            if not present and before is not None:
                save_json(RECORDS, {other: state for other, state in records.items() if other != name})
    except HpcError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(verbs), actions=verbs)


if __name__ == "__main__":
    main()
