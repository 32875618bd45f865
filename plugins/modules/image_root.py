#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_root
version_added: "0.1.0"
short_description: Cleans and checks the build root of an image
description:
  - Run it in a build root, last, before the image is taken.
  - Disables the services that the installed packages enabled. Roles enable them on the machines where they belong.
  - Deletes host keys, the machine id, package lists, logs, temporary files and the records of this collection.
  - Then fails if a private key, a password, an identifier or a half-installed package is left.
author: The turnkey.hpc founders (@turnkey-hpc)
options:
  enabled_units:
    description: Units that may stay enabled.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    support: none
    description: A build root exists only while an image is built.
  diff_mode:
    support: none
    description: Returns what it removed instead.
  idempotent:
    support: full
    description: A clean root is not changed.
"""

EXAMPLES = r"""
- name: Leave nothing in the image that must not be there
  turnkey.hpc.image_root:
    enabled_units: [ssh.service]
"""

RETURN = r"""
removed:
  description: Paths that were deleted.
  type: list
  elements: str
  returned: success
  sample: [/etc/ssh/ssh_host_ed25519_key]
disabled:
  description: Units that were disabled.
  type: list
  elements: str
  returned: success
  sample: [nfs-ganesha.service]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._image_root import clean, leftovers, units_to_disable


def main() -> None:
    """Run the module."""
    module = AnsibleModule({"enabled_units": {"type": "list", "elements": "str", "required": True}})

    def run(*argv: str) -> str:
        return str(module.run_command(list(argv), check_rc=True, environ_update={"LC_ALL": "C"})[1])

    listing = run("systemctl", "--root=/", "list-unit-files", "--state=enabled", "--no-legend", "--no-pager")
    disabled = units_to_disable([line.split()[0] for line in listing.splitlines()], module.params["enabled_units"])
    if disabled:
        run("systemctl", "--root=/", "disable", *disabled)
    run("apt-get", "clean")
    removed = clean(Path("/"))
    problems = leftovers(Path("/"), lambda: run("dpkg", "--audit"))
    if problems:
        module.fail_json(msg="The image can't be published: " + join_problems(problems), problems=problems)
    module.exit_json(changed=bool(removed or disabled), removed=removed, disabled=disabled)


if __name__ == "__main__":
    main()
