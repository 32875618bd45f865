#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_upgrade
short_description: Brings Slurm on a host to the newest version of its package sources
version_added: "0.1.0"
description:
  - Upgrades the packages of Slurm that are installed, and no others, and restarts the daemons in Slurm's order, each
    when the one before answers. Jobs run on.
  - Refuses to skip more releases than Slurm supports, and names the way to go; and to make a node newer than the
    controllers. The playbook C(upgrade.yml) makes a backup and goes through the hosts in order.
  - A daemon that still runs a program which was replaced, or that a run which was cut off has stopped, is started
    again, too.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Fetches the package lists, if O(refresh) says so, does all checks, and changes nothing else.
  diff_mode:
    support: full
    description: Shows the versions of the packages.
  idempotent:
    support: full
    description: What is the newest version and runs is left alone.
options:
  refresh:
    description: Whether the package lists are fetched first.
    type: bool
    default: true
  wait_seconds:
    description: How long to wait for each daemon to answer. A large database is converted for a long time.
    type: int
    default: 3600
"""

EXAMPLES = r"""
- name: Upgrade Slurm here
  turnkey.hpc.slurm_upgrade:
"""

RETURN = r"""
before:
  description: Version that was installed. Empty where Slurm is not.
  returned: success
  type: str
  sample: 22.05.8-4+deb12u2
after:
  description: Version that is, or would be, installed.
  returned: success
  type: str
  sample: 22.05.8-4+deb12u3
packages:
  description: Packages that were, or would be, upgraded, with their new versions.
  returned: success
  type: dict
restarted:
  description: Daemons that were, or would be, started again.
  returned: success
  type: list
  elements: str
  sample: [slurmdbd, slurmctld]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._packages import ENVIRONMENT
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.upgrade import Host
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "refresh": {"type": "bool", "default": True},
            "wait_seconds": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    host = Host(runner(module.run_command, ENVIRONMENT))
    with errors_end(module):
        if module.params["refresh"]:
            host.refresh()
        steps = host.plan()
        if steps and not module.check_mode:
            host.refuse_to_overtake(steps)
            host.apply(steps, module.params["wait_seconds"])
    result: dict[str, Any] = {"changed": bool(steps), "before": steps.before, "after": steps.after}
    result.update(packages=steps.versions, restarted=list(steps.start))
    if module._diff:
        result["diff"] = {
            "before_header": "slurm",
            "after_header": "slurm",
            "before": f"{steps.before}\n",
            "after": f"{steps.after}\n",
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
