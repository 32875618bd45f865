#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_files
version_added: "0.1.0"
short_description: A copy of an airgap bundle on a host
description:
  - Brings the files of a bundle to a host, those that it lacks, and checks each against the manifest there.
  - A run that was cut off is continued by the next. The manifest is written last, so a copy with one is whole.
  - Verify the bundle first, with M(turnkey.hpc.airgap_bundle). An action plugin reads it on the control node.
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Says which files would be copied and removed.
  diff_mode:
    support: full
    description: Lists the files that come and go.
  idempotent:
    support: full
    description: Every file is read and compared; what is right stays.
options:
  bundle:
    description: Directory of the bundle on the control node. Needed for O(state=present).
    type: path
  manifest_sha256:
    description: Digest of the manifest that was verified. Needed for O(state=present).
    type: str
  directory:
    description: Directory on the host. Everything in it that is not of the bundle is removed.
    type: path
    required: true
  allow_older:
    description: Whether a bundle may replace one that was made later.
    type: bool
    default: false
  state:
    description: Whether the copy is there.
    type: str
    choices: [present, absent]
    default: present
  _manifest:
    description: Set by the action plugin. Not for use in tasks.
    type: path
  _archive:
    description: Set by the action plugin. Not for use in tasks.
    type: path
  _finish:
    description: Set by the action plugin. Not for use in tasks.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Verify the bundle
  turnkey.hpc.airgap_bundle:
    path: /media/usb/lab
    state: verified
    key_dir: .secrets/bundle
  delegate_to: localhost
  register: bundle

- name: Copy it to the host that serves it
  turnkey.hpc.bundle_files:
    bundle: /media/usb/lab
    manifest_sha256: "{{ bundle.manifest_sha256 }}"
    directory: /srv/turnkey-mirror
"""

RETURN = r"""
copied:
  description: Number of files that were copied.
  returned: when something was copied
  type: int
  sample: 312
"""

import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.copy import Copy
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import check_directory
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end


def remove(directory: Path, check_mode: bool) -> dict[str, Any]:
    """Remove the copy."""
    there = directory.is_dir()
    check_directory(directory)
    if there and not check_mode:
        shutil.rmtree(directory)
    return {"changed": there}


def bring(directory: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Do one step."""
    copy = Copy(directory, Path(given["_manifest"]).read_text(encoding="utf-8"))
    if given["_archive"]:
        copy.unpack(Path(given["_archive"]))
        return {"changed": True}
    if not given["allow_older"]:
        copy.check_age()
    missing, extra = copy.look()
    if given["_finish"]:
        copy.finish(extra)
        return {"changed": True}
    lines = [f"+ {file.path}\n" for file in missing] + [f"- {path}\n" for path in extra]
    return {
        "changed": bool(missing or extra or not copy.current()),
        "missing": [file.path for file in missing],
        "diff": {"before": "", "after": "".join(lines)},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "bundle": {"type": "path"},
            "manifest_sha256": {"type": "str"},
            "directory": {"type": "path", "required": True},
            "allow_older": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "_manifest": {"type": "path"},
            "_archive": {"type": "path"},
            "_finish": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    with errors_end(module):
        if module.params["state"] == "absent":
            result = remove(directory, module.check_mode)
        elif not module.params["_manifest"]:
            raise HpcError("bundle and manifest_sha256 are needed.", "give both.")
        else:
            result = bring(directory, module.params)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
