#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: All configuration files of a role at once, and back to what was there before
version_added: "0.1.0"
description:
  - Writes files from templates or texts, keeps blocks in files that belong to others, and makes directories, all with
    one run on the host.
  - Every file is replaced atomically, or written in place where it is a mount point.
  - The original of a file that is overwritten for the first time is kept in C(/var/lib/turnkey/originals) and comes
    back with O(files[].state=absent). What this module did not write, it does not remove.
  - Remove files before the package that they belong to, so that the package finds its own originals.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Reports what would be written, also on a host where directories or users are still missing.
  diff_mode:
    support: full
    description: Shows each file that differs.
  idempotent:
    support: full
    description: Files are written only if they differ.
options:
  files:
    description: The files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host. Its directory exists or is one of O(directories).
        type: path
        required: true
      template:
        description: Name of a template of the role, rendered like M(ansible.builtin.template) does.
        type: str
      content:
        description: The text of the file, instead of O(files[].template).
        type: str
      block:
        description:
          - Lines to keep in a file that belongs to others, between two comment lines that name O(files[].marker).
          - Mode and owner of the file stay as they are, unless the file has to be made.
        type: str
      marker:
        description:
          - Name of the block. Needed to remove a block, and where a file has more than one.
          - A new block has the name C(turnkey.hpc) if none is given.
        type: str
      replaces:
        description:
          - Regular expression. The lines of others that it matches are commented out as long as the block is there.
        type: str
      mode:
        description: Mode of the file, octal.
        type: str
        default: "0644"
      owner:
        description: Owner of the file.
        type: str
        default: root
      group:
        description: Group of the file.
        type: str
        default: root
      validate:
        description:
          - Command that must accept the new file before it replaces the old one. C(%s) stands for its path.
          - Not run in check mode.
        type: list
        elements: str
      secret:
        description: Whether the diff leaves out what is in the file.
        type: bool
        default: false
      state:
        description:
          - V(present), the file or block is there.
          - V(absent), a file that this module wrote gives way to what was there before, a block is taken out.
        type: str
        choices: [present, absent]
        default: present
  directories:
    description: Directories, made before the files.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: path
        required: true
      mode:
        description: Mode of the directory, octal.
        type: str
        default: "0755"
      owner:
        description: Owner of the directory.
        type: str
        default: root
      group:
        description: Group of the directory.
        type: str
        default: root
      state:
        description:
          - V(present), the directory is there.
          - V(absent), a directory that this module made is removed if it is empty.
        type: str
        choices: [present, absent]
        default: present
      wipe:
        description: With V(absent), remove a directory that this module made with all that is in it.
        type: bool
        default: false
  _texts:
    description: Set by the action plugin, which hands over all texts in it, out of sight of logs. Not for use in tasks.
    type: str
"""

EXAMPLES = r"""
- name: Write the configuration of the time service
  turnkey.hpc.config_files:
    directories:
      - path: /etc/systemd/system/chrony.service.d
    files:
      - path: /etc/chrony/chrony.conf
        template: chrony.conf.j2
      - path: /etc/hosts
        block: "10.0.0.11 node1"
        marker: turnkey.hpc hosts
  register: __baseline_files

- name: Put back what was there before
  turnkey.hpc.config_files:
    files:
      - path: /etc/chrony/chrony.conf
        state: absent
      - path: /etc/hosts
        marker: turnkey.hpc hosts
        state: absent
    directories:
      - path: /etc/systemd/system/chrony.service.d
        state: absent
"""

RETURN = r"""
changed_paths:
  description: Files and directories that were, or would be, changed.
  returned: success
  type: list
  elements: str
  sample: [/etc/chrony/chrony.conf]
"""

import base64
import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._config_files import (
    Host,
    apply,
    parse_directories,
    parse_files,
    plan,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner

RIGHTS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}
FILE: dict[str, Any] = {
    **RIGHTS,
    "mode": {"type": "str", "default": "0644"},
    "template": {"type": "str"},
    "content": {"type": "str"},
    "block": {"type": "str"},
    "marker": {"type": "str"},
    "replaces": {"type": "str"},
    "validate": {"type": "list", "elements": "str"},
    "secret": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "default": [], "options": FILE},
            "directories": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    **RIGHTS,
                    "mode": {"type": "str", "default": "0755"},
                    "wipe": {"type": "bool", "default": False},
                },
            },
            # The texts travel here, put there by the action plugin: as one hidden value they reach neither the host's
            # log nor the result, and are not masked wherever a short one happens to occur in other output.
            "_texts": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )

    with errors_end(module):
        items = [dict(item) for item in module.params["files"]]
        if module.params["_texts"]:
            for item, texts in zip(items, json.loads(base64.b64decode(module.params["_texts"]))):
                item.update(texts)
        host = Host(runner(module.run_command))
        files = parse_files(items)
        directories = parse_directories(module.params["directories"])
        before = host.records()
        actions, after = plan(files, directories, before, host.look, host.original, foretell=module.check_mode)
        if not module.check_mode:
            apply(host, actions, before, after)
    result: dict[str, Any] = {"changed": bool(actions), "changed_paths": [action.path for action in actions]}
    if module._diff:
        result["diff"] = [action.diff for action in actions]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
