#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: site_directory
short_description: Writes a directory of the user's own for a new cluster
version_added: "0.1.0"
description:
  - Makes a directory and the files in it. It never overwrites anything. A directory that has files already is an error
    that names them.
  - The playbook C(turnkey.hpc.new) uses it.
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Says what would be written.
  diff_mode:
    support: full
    description: Shows each file.
  idempotent:
    support: none
    description: A second run is refused, since what was written once is the user's.
options:
  path:
    description: The directory. It is made where it is missing; else it must be empty.
    type: path
    required: true
  cluster_name:
    description: Name of the cluster, which is checked.
    type: str
    required: true
  files:
    description: Texts of the files, by their names within the directory.
    type: dict
    required: true
seealso:
  - module: turnkey.hpc.cluster_machines
"""

EXAMPLES = r"""
- name: Begin a site
  turnkey.hpc.site_directory:
    path: lab
    cluster_name: lab
    files:
      site.yml: "- ansible.builtin.import_playbook: turnkey.hpc.site\n"
"""

RETURN = r"""
path:
  description: The whole path of the directory.
  returned: success
  type: str
  sample: /home/alice/lab
files:
  description: Names of the files.
  returned: success
  type: list
  elements: str
  sample: [site.yml]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._site_directory import plan_site, write_site


def run(module: AnsibleModule) -> dict[str, object]:
    """Look, write unless in check mode, and return the result."""
    directory = Path(module.params["path"]).absolute()
    plan = plan_site(directory, module.params["cluster_name"], module.params["files"])
    if not module.check_mode:
        write_site(plan)
    return {
        "changed": True,
        "path": str(directory),
        "files": [str(path.relative_to(directory)) for path in plan],
        "diff": [
            {"before_header": str(path), "after_header": str(path), "before": "", "after": text}
            for path, text in plan.items()
        ],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "cluster_name": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    with errors_end(module):
        result = run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
