#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_backup
short_description: Archives of Slurm's accounting database and of the controller's state
version_added: "0.1.0"
description:
  - Writes an archive of each part of a backup that is on this host, with a manifest of what it is of.
  - Meanwhile slurmctld is stopped, so that both parts are of the same moment. Jobs run on, and commands wait for some
    seconds before they give up.
  - The playbook C(backup.yml) uses it. See M(turnkey.hpc.slurm_restore) for the way back.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Writes nothing.
  diff_mode:
    support: none
    description: Returns the archives instead.
  idempotent:
    support: none
    description: Every run makes new archives.
options:
  parts:
    description:
      - V(accounting), the database, on the host where MariaDB runs.
      - V(state), what slurmctld keeps in O(state_dir), on a controller.
    type: list
    elements: str
    choices: [accounting, state]
    required: true
  path:
    description: Directory on the host for the archives. It is made, for root only.
    type: path
    required: true
  cluster:
    description: Name of the cluster within Slurm.
    type: str
    required: true
  state_dir:
    description: C(StateSaveLocation) of slurmctld.
    type: path
    default: /var/lib/slurm/slurmctld
  database:
    description: C(StorageLoc) of slurmdbd.
    type: str
    default: slurm_acct_db
  hold_controller:
    description: Whether slurmctld on this host is stopped meanwhile. Otherwise the caller has to see to that.
    type: bool
    default: true
  made_at:
    description: When the backup was begun, as its name.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Archive both parts on a controller that has the database, too
  turnkey.hpc.slurm_backup:
    parts: [accounting, state]
    path: /var/lib/turnkey/slurm/backup
    cluster: lab
    made_at: 20261122T101500Z
"""

RETURN = r"""
archives:
  description: The archives that were, or would be, written.
  returned: success
  type: list
  elements: path
  sample: [/var/lib/turnkey/slurm/backup/accounting.tar]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.backup import (
    PARTS,
    held,
    pack_accounting,
    pack_state,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "parts": {"type": "list", "elements": "str", "choices": list(PARTS), "required": True},
            "path": {"type": "path", "required": True},
            "cluster": {"type": "str", "required": True},
            "state_dir": {"type": "path", "default": "/var/lib/slurm/slurmctld"},
            "database": {"type": "str", "default": "slurm_acct_db"},
            "hold_controller": {"type": "bool", "default": True},
            "made_at": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    run = runner(module.run_command)
    archives = {part: Path(params["path"]) / f"{part}.tar" for part in params["parts"]}
    with errors_end(module):
        if not module.check_mode:
            Path(params["path"]).mkdir(parents=True, exist_ok=True, mode=0o700)
            Path(params["path"]).chmod(0o700)
            with held(run, params["hold_controller"]):
                if "accounting" in archives:
                    database = params["database"]
                    pack_accounting(run, archives["accounting"], params["cluster"], database, params["made_at"])
                if "state" in archives:
                    pack_state(run, archives["state"], params["cluster"], Path(params["state_dir"]), params["made_at"])
    module.exit_json(changed=bool(archives), archives=[str(archive) for archive in archives.values()])


if __name__ == "__main__":
    main()
