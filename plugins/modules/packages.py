#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Debian packages that leave again without a trace
version_added: "0.1.0"
description:
  - Installs Debian packages with one call of C(apt-get), without recommended ones, and records which packages came with
    it and for whom, in C(/var/lib/turnkey/packages.json). Later it purges exactly those.
  - When everything is installed it needs no package lists and no network. The lists are fetched only if something is
    missing and either there are none or they do not serve.
  - While it installs, no service is started. The caller starts what it wants once that is configured.
  - An installation that was interrupted before is finished first.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Reports what would be installed or removed. Without package lists, dependencies are not foretold.
  diff_mode:
    support: full
    description: Shows the packages that come and go.
  idempotent:
    support: full
    description: A second run changes nothing.
options:
  name:
    description:
      - Names of real packages, not of virtual ones.
      - With O(state=absent) it is not used, what goes follows from the records.
    type: list
    elements: str
    default: []
  owner:
    description: For whom the packages are, usually the name of the role.
    type: str
    required: true
  state:
    description:
      - V(present), all of O(name) are installed.
      - V(absent), what was installed for O(owner) is purged with its dependencies. What was there before stays, as does
        what another owner uses or what something else on the host depends on. Packages that had to go come back.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Install the MPI compiler wrappers
  turnkey.hpc.packages:
    name: [openmpi-bin, libopenmpi-dev]
    owner: openmpi

- name: Remove them again, with what came along
  turnkey.hpc.packages:
    owner: openmpi
    state: absent
"""

RETURN = r"""
installed:
  description: Packages that were, or would be, installed, dependencies included.
  returned: success
  type: list
  elements: str
  sample: [libopenmpi-dev, openmpi-bin]
removed:
  description: Packages that were, or would be, removed.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._packages import ENVIRONMENT, ensure_absent, ensure_present
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "default": []},
            "owner": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )

    run = runner(module.run_command, ENVIRONMENT)
    owner = module.params["owner"]
    with errors_end(module):
        if module.params["state"] == "present":
            outcome = ensure_present(run, module.params["name"], owner, check_mode=module.check_mode)
        else:
            outcome = ensure_absent(run, owner, check_mode=module.check_mode)
    for warning in outcome.warnings:
        module.warn(warning)
    result = {"changed": outcome.changed, "installed": outcome.installed, "removed": outcome.removed}
    if module._diff:
        result["diff"] = outcome.diff
    module.exit_json(**result)


if __name__ == "__main__":
    main()
