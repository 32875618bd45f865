#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: A virtual environment from a lock file, beside the one before it
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Makes a virtual environment from requirements with hashes, in a directory of its own, and lets the link C(current)
    lead to it. The one that was used before stays, and C(previous) leads to it.
  - What runs from the old one is not disturbed. An environment that was cut off is made anew.
  - Only wheels are installed, and none whose hash is not in the requirements.
  - The host needs no network. The control node fetches the wheels with its own pip, once for all hosts, and brings them
    there. An action plugin; it runs the module on the host once if nothing is to be built.
requirements:
  - python3-venv on the host
  - pip on the control node, unless O(wheel_dir) is given
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
    description: Lists the steps.
  idempotent:
    support: full
    description: An environment that is there is left alone. No wheels are fetched for it.
options:
  path:
    description: Directory of the environments and links.
    type: path
    required: true
  requirements:
    description:
      - Texts of the lock files, every requirement with its hashes, by the version of Python that they are for, such as
        V(3.11). The host's own counts. Needed with O(state=present).
    type: dict
    default: {}
  files:
    description: Texts to lay into the environment, by their paths in it. Other ones need no new environment.
    type: dict
    default: {}
  wheel_dir:
    description:
      - Directory on the control node with all the wheels. Then no package index is asked.
      - Without it they are fetched from where the control node's pip gets its packages, and kept in O(cache_dir).
    type: path
    default: ""
  cache_dir:
    description: Directory on the control node for wheels that were fetched.
    type: path
    default: ~/.cache/turnkey/wheels
  state:
    description:
      - V(present), C(current) leads to the environment of O(requirements).
      - V(previous), C(current) and C(previous) change places.
      - V(absent), what was made on this host is gone. What came with the image that the host started from stays, and
        is in use again.
    type: str
    choices: [present, previous, absent]
    default: present
  _wheels:
    description: Set by the action plugin, an archive on the host. Not for use in tasks.
    type: path
    default: ""
"""

EXAMPLES = r"""
- name: Install what notebooks need
  turnkey.hpc.python_environment:
    path: /opt/turnkey/jupyterhub
    requirements:
      "3.11": "{{ lookup('ansible.builtin.file', 'requirements-debian12.txt') }}"
      "3.13": "{{ lookup('ansible.builtin.file', 'requirements-debian13.txt') }}"

- name: Go back to what was there before
  turnkey.hpc.python_environment:
    path: /opt/turnkey/jupyterhub
    state: previous
"""

RETURN = r"""
release:
  description: Name of the release in use, or the empty string.
  returned: success
  type: str
  sample: 3f2a91c07d11
actions:
  description: What was, or would be, done.
  returned: success
  type: list
  elements: str
  sample: [build 3f2a91c07d11, link current to 3f2a91c07d11]
"""

import platform
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._python_environment import (
    RECORDS,
    apply,
    look,
    made_here,
    outdated,
    plan,
    plan_removal,
    plan_rollback,
    release_name,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, runner


def bring(params: dict[str, Any], run: Run, check_mode: bool) -> dict[str, Any]:
    """Bring the environment into the wanted state."""
    path, found = Path(params["path"]), look(Path(params["path"]))
    python = ".".join(platform.python_version_tuple()[:2])
    lock = params["requirements"].get(python, "")
    if params["state"] == "absent":
        actions, release = plan_removal(found, made_here(path, RECORDS)), ""
    elif params["state"] == "previous":
        actions, release = plan_rollback(found), found.previous
    else:
        if not lock:
            known = ", ".join(params["requirements"]) or "none"
            raise InvalidInput(f"There is no lock file for Python {python}, but for {known}.", "add one.")
        release = release_name(lock, python)
        actions = plan(found, release, outdated(path / release, params["files"]))
    removed = {action.release for action in actions if action.verb == "remove"}
    nothing_stays = params["state"] == "absent" and path.is_dir() and not set(found.releases) - removed
    changed = bool(actions) or nothing_stays
    missing = any(action.verb == "build" for action in actions) and not params["_wheels"]
    if changed and not check_mode and not missing:
        apply(run, path, actions, lock, params["files"], params["_wheels"], RECORDS)
        if nothing_stays:
            shutil.rmtree(path)
            # Its parent may be there for it alone.
            if path.parent.name == "turnkey" and not any(path.parent.iterdir()):
                path.parent.rmdir()
    steps = [str(action) for action in actions]
    return {
        "changed": changed,
        "release": release,
        "actions": steps,
        "missing": {"python": python, "machine": platform.machine()} if missing else {},
        "diff": {"prepared": "".join(f"{step}\n" for step in steps)},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "requirements": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "wheel_dir": {"type": "path", "default": ""},
            "cache_dir": {"type": "path", "default": "~/.cache/turnkey/wheels"},
            "state": {"type": "str", "choices": ["present", "previous", "absent"], "default": "present"},
            "_wheels": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    with errors_end(module):
        result = bring(module.params, runner(module.run_command), module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
