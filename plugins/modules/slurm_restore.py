#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_restore
short_description: Brings back what slurm_backup archived
version_added: "0.1.0"
description:
  - Replaces the accounting database and the controller's state on this host by those of archives.
  - Refuses, before anything is changed, an archive of another cluster, of a later release of Slurm than the one here,
    or of one that is too old for it; and to replace accounting data with jobs in it, unless O(confirm) says so.
  - slurmctld and slurmdbd have to be stopped meanwhile.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Does all checks, and changes nothing. The archives have to be on the host.
  diff_mode:
    support: none
    description: The database and the state are replaced as a whole.
  idempotent:
    support: none
    description: Every run replaces them.
options:
  parts:
    description: The parts that are on this host, see M(turnkey.hpc.slurm_backup).
    type: list
    elements: str
    choices: [accounting, state]
    required: true
  path:
    description: Directory on the host with the archives.
    type: path
    required: true
  cluster:
    description: Name of the cluster within Slurm.
    type: str
    required: true
  confirm:
    description: Name of the cluster, if accounting data with jobs in it may be replaced.
    type: str
    default: ""
  state_dir:
    description: C(StateSaveLocation) of slurmctld.
    type: path
    default: /var/lib/slurm/slurmctld
  database:
    description: C(StorageLoc) of slurmdbd.
    type: str
    default: slurm_acct_db
"""

EXAMPLES = r"""
- name: See that the archives fit
  turnkey.hpc.slurm_restore:
    parts: [accounting, state]
    path: /var/lib/turnkey/slurm/restore
    cluster: lab
  check_mode: true
"""

RETURN = r"""
manifests:
  description: What the archives say of themselves.
  returned: success
  type: list
  elements: dict
  sample: [{part: state, cluster: lab, version: 22.05.8, made_at: 20261122T101500Z}]
"""

import pwd
from dataclasses import asdict
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.backup import (
    PARTS,
    check,
    read_manifest,
    recorded_jobs,
    unpack_accounting,
    unpack_state,
    version,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, runner


def _refuse_loss(run: Run, database: str, cluster: str, confirm: str) -> None:
    jobs = 0 if confirm == cluster else recorded_jobs(run, database, cluster)
    if jobs:
        raise HpcError(
            f"The accounting database has {jobs} jobs of cluster '{cluster}', which would be lost.",
            f"if they are in the backup, or may go, add -e slurm_restore_confirm={cluster}",
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "parts": {"type": "list", "elements": "str", "choices": list(PARTS), "required": True},
            "path": {"type": "path", "required": True},
            "cluster": {"type": "str", "required": True},
            "confirm": {"type": "str", "default": ""},
            "state_dir": {"type": "path", "default": "/var/lib/slurm/slurmctld"},
            "database": {"type": "str", "default": "slurm_acct_db"},
        },
        supports_check_mode=True,
    )
    params = module.params
    run = runner(module.run_command)
    cluster, database, directory = params["cluster"], params["database"], Path(params["state_dir"])
    archives = {part: Path(params["path"]) / f"{part}.tar" for part in params["parts"]}
    with errors_end(module):
        manifests = [read_manifest(archive) for archive in archives.values()]
        for part, manifest in zip(archives, manifests):
            check(manifest, part, cluster, version(run, part))
        if "accounting" in archives:
            _refuse_loss(run, database, cluster, params["confirm"])
        if not module.check_mode:
            if "accounting" in archives:
                unpack_accounting(run, archives["accounting"], database)
            if "state" in archives:
                account = pwd.getpwnam("slurm")
                unpack_state(archives["state"], directory, (account.pw_uid, account.pw_gid))
    module.exit_json(changed=bool(archives), manifests=[asdict(manifest) for manifest in manifests])


if __name__ == "__main__":
    main()
