#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_install
short_description: Installs k3s from the files of a release on the control node
version_added: "0.1.0"
description:
  - Brings the program and the tarball of its images from a directory on the control node to the host. Nothing is
    downloaded, and what the host has already is not sent again.
  - Each file is checked against the release's list of SHA-256 sums on the control node before it is sent, and again on
    the host before it takes its place. The program must then say that it is O(version).
  - Makes the commands C(kubectl), C(crictl) and C(ctr), where the host has none of that name.
  - Starts nothing. Fit for images.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Does all checks that need no transfer, and reports what would be installed.
  diff_mode:
    support: full
    description: Shows the version before and after.
  idempotent:
    support: full
    description: Files that are what they should be stay.
options:
  release_dir:
    description:
      - Directory on the control node with the files as their makers publish them, C(k3s),
        C(k3s-airgap-images-amd64.tar.zst) (or C(.tar.gz), C(.tar)) and C(sha256sum-amd64.txt).
      - Required with O(state=present).
    type: path
  version:
    description: The version that the program must have. Required with O(state=present).
    type: str
  architecture:
    description: Processor of the host.
    type: str
    choices: [amd64, arm64]
    default: amd64
  work_dir:
    description: Data directory of k3s, which gets the images.
    type: path
    default: /var/lib/rancher/k3s
  upgrade:
    description: Whether a version that is installed may be replaced by the next one. Never by an older one.
    type: bool
    default: false
  state:
    description:
      - V(present), the files are there.
      - V(absent), what this module installed is gone.
    type: str
    choices: [present, absent]
    default: present
  _files:
    description: Set by the action plugin. Not for use in tasks.
    type: list
    elements: dict
"""

EXAMPLES = r"""
- name: Install k3s from local files
  turnkey.hpc.k3s_install:
    release_dir: /srv/releases/v1.34.2+k3s1
    version: v1.34.2+k3s1
"""

RETURN = r"""
missing:
  description: Files that were, or would be, sent to the host.
  returned: success
  type: list
  elements: str
  sample: [/usr/local/bin/k3s]
before:
  description: Version that was installed. Empty if there was none.
  returned: success
  type: str
  sample: v1.33.6+k3s1
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.host import PROGRAM, Host
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.versions import refuse_step, version_in
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def present(host: Host, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the files to their places; those that have not arrived are only named."""
    before, version = host.version(), given["version"]
    if before and before != version:
        problem = refuse_step(before, version)
        if not problem and not given["upgrade"]:
            problem = f"{before} is installed, and k3s_version is {version}. Remedy: run the playbook upgrade_k3s."
        host.refuse_if_any([problem] if problem else [])
    places = {"program": PROGRAM, "images": str(host.data / "agent/images")}
    files = []
    for item in given["_files"]:
        target = places[item["kind"]] if item["kind"] == "program" else f"{places['images']}/{version}-{item['name']}"
        files.append({**item, "target": target})
    missing = host.missing({item["target"]: item["sha256"] for item in files})
    images = [item["target"] for item in files if item["kind"] == "images"]
    stale, links = host.stale_images(images), host.missing_links()
    arrived = all(item.get("source") for item in files if item["target"] in missing)
    if arrived and not check_mode:
        # The program last: it is what says which version is installed.
        for item in sorted(files, key=lambda item: item["kind"] == "program"):
            if item["target"] in missing:
                if item["kind"] == "program":
                    refuse_wrong_version(host, item["source"], version)
                host.put(item["source"], item["target"], item["sha256"], 0o755 if item["kind"] == "program" else 0o644)
        for path in stale:
            Path(path).unlink(missing_ok=True)
        for path in links:
            Path(path).symlink_to(PROGRAM)
        if missing or stale or links:
            known = host.records().get("links", [])
            host.note(images=images, links=sorted({*known, *links}), program=PROGRAM)
    return {
        "changed": bool(missing or stale or links),
        "missing": missing,
        "wanted": [item["name"] for item in files if item["target"] in missing],
        "before": before,
        "diff": {"before": f"{before or 'no k3s'}\n", "after": f"{version}\n"},
    }


def refuse_wrong_version(host: Host, source: str, version: str) -> None:
    """Ask the program that has arrived what it is, before it replaces another."""
    Path(source).chmod(0o700)
    found = version_in(host.run([source, "--version"], None)[1])
    if found != version:
        raise HpcError(
            f"The program says that it is {found or 'no k3s'}, and k3s_version is {version}.",
            "put the files of that release into k3s_release_dir, or set k3s_version.",
        )


def absent(host: Host, check_mode: bool) -> dict[str, Any]:
    """Remove what came by us."""
    records = host.records()
    links = [path for path in records.get("links", []) if Path(path).is_symlink()]
    paths = [path for path in [*records.get("images", []), records.get("program", "")] if path and Path(path).exists()]
    if not check_mode:
        for path in [*links, *paths]:
            Path(path).unlink()
        if records:
            host.note(images=[], links=[], program="", running="")
    return {"changed": bool(links or paths), "missing": [], "wanted": [], "before": "", "removed": [*links, *paths]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "release_dir": {"type": "path"},
            "version": {"type": "str"},
            "architecture": {"type": "str", "choices": ["amd64", "arm64"], "default": "amd64"},
            "work_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "upgrade": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "_files": {"type": "list", "elements": "dict"},
        },
        required_if=[("state", "present", ("release_dir", "version", "_files"))],
        supports_check_mode=True,
    )
    host = Host(runner(module.run_command), module.params["work_dir"])
    with errors_end(module):
        if module.params["state"] == "present":
            result = present(host, module.params, module.check_mode)
        else:
            result = absent(host, module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
