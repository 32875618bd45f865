#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_backup_directory
short_description: Directory on the control node with the last backups of a Slurm cluster
version_added: "0.1.0"
description:
  - Backups are directories C(<path>/<cluster>/<date>), for their owner only. One that is not complete has another name
    and is removed by the next one.
  - The playbooks C(backup.yml) and C(restore.yml) use it.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Makes and removes nothing.
  diff_mode:
    support: none
    description: Returns the names of directories instead.
  idempotent:
    support: none
    description: Every backup has a directory of its own.
options:
  state:
    description:
      - V(begun), there is an empty place for a new backup.
      - V(complete), the backup in O(backup) is whole, has its name, and is one of the last O(keep).
      - V(found), O(backup), or the newest backup, exists.
    type: str
    choices: [begun, complete, found]
    required: true
  path:
    description: Directory for the backups of all clusters.
    type: path
    required: true
  cluster:
    description: Name of the cluster.
    type: str
    required: true
  backup:
    description: Path, or name below C(<path>/<cluster>), of a backup.
    type: str
    default: ""
  keep:
    description: How many backups stay.
    type: int
    default: 7
"""

EXAMPLES = r"""
- name: Find the newest backup
  turnkey.hpc.slurm_backup_directory:
    state: found
    path: /srv/backups
    cluster: lab
"""

RETURN = r"""
path:
  description: Directory of the backup.
  returned: success
  type: str
  sample: /srv/backups/lab/20261122T101500Z
name:
  description: Name of the backup, which is when it was begun.
  returned: success
  type: str
  sample: 20261122T101500Z
removed:
  description: Names of the backups that were removed.
  returned: success
  type: list
  elements: str
  sample: []
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.backup import begin, complete, find


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["begun", "complete", "found"], "required": True},
            "path": {"type": "path", "required": True},
            "cluster": {"type": "str", "required": True},
            "backup": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 7},
        },
        supports_check_mode=True,
    )
    params, state = module.params, module.params["state"]
    home = Path(params["path"])
    removed: list[str] = []
    with errors_end(module):
        if state == "found":
            place = find(home, params["cluster"], params["backup"])
        elif module.check_mode:
            place = home / params["cluster"] / "new"
        elif state == "begun":
            place = begin(home, params["cluster"])
        else:
            place, removed = complete(Path(params["backup"]), params["keep"])
    module.exit_json(changed=state != "found", path=str(place), name=place.stem, removed=removed)


if __name__ == "__main__":
    main()
