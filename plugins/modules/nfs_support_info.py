#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_support_info
short_description: Tell what NFS the running kernel can do
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Tells whether the kernel can serve and mount NFS, now or after loading a module.
  - Tells which of O(exports) are on a file system that no NFS server can export.
options:
  exports:
    description: Paths that are to be exported. They need not exist yet.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: Can run in check mode and return what it would without it.
    support: full
  diff_mode:
    description: Changes nothing, so there is nothing to show.
    support: none
  idempotent:
    description: Changes nothing, however often it runs.
    support: full
"""

EXAMPLES = r"""
- name: See which NFS server fits
  turnkey.hpc.nfs_support_info:
    exports: [/shared]
  register: support
"""

RETURN = r"""
client:
  description: Whether the kernel can mount NFSv4.
  returned: success
  type: bool
server:
  description: Whether the kernel has an NFS server that is this host's own.
  returned: success
  type: bool
container:
  description: Whether the host is a container.
  returned: success
  type: bool
problems:
  description: What is wrong with O(exports), a text each.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._nfs import (
    Support,
    parse_mountinfo,
    unwanted_filesystems,
)


def run_module(module: AnsibleModule) -> dict[str, Any]:
    """Look at the host and return what was found."""

    def run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        try:
            return module.run_command(argv, data=stdin, handle_exceptions=False)  # type: ignore[no-any-return]
        except OSError as error:
            return 127, "", str(error)

    problems = unwanted_filesystems(
        module.params["exports"], parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    )
    support = Support.of_this_host(run)
    return {"client": support.client, "server": support.server, "container": support.container, "problems": problems}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={"exports": {"type": "list", "elements": "path", "default": []}}, supports_check_mode=True
    )
    module.exit_json(changed=False, **run_module(module))


if __name__ == "__main__":
    main()
