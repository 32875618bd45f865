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
      - V(absent), it is stopped and disabled. A service that does not exist is fine.
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
from ansible_collections.turnkey.hpc.plugins.module_utils._service import act, look, newest, plan
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


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
    name, present = module.params["name"], module.params["state"] == "present"
    status = look(run, name)
    if present and not status.exists and not module.check_mode:
        module.fail_json(msg=f"There is no service {name!r}. Remedy: install the package that has it first.")
    verbs = plan(status, present, newest(module.params["config"]))
    if not module.check_mode:
        try:
            act(run, name, verbs)
        except HpcError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=bool(verbs), actions=verbs)


if __name__ == "__main__":
    main()
