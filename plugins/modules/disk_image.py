#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: disk_image
version_added: "0.1.0"
short_description: Finds and makes a golden image of virtual machines from a cloud image
description:
  - Runs on the control node. The role P(turnkey.hpc.base_image#role) calls it around the installation of the other
    roles on a build machine, which M(turnkey.hpc.cluster_machines) makes from O(source) and removes.
  - An image is a directory with a qcow2 disk. It starts as O(source) does, by its own loader or by the kernel beside
    it, and carries the hash of its inputs. An image with the same inputs is not made twice.
  - With O(state=found) it also removes build machines whose time is over, since the runs that began them were killed.
    They are known by their names, V(build-) and ten digits; call no other cluster so.
author: The turnkey.hpc founders (@turnkey-hpc)
extends_documentation_fragment:
  - turnkey.hpc.golden_image
  - turnkey.hpc.golden_image.build
options:
  state:
    description:
      - V(found), tells whether the image exists, and a name for a cluster that is to build it.
      - V(published), the disk of the only machine of O(build) has become the image. The machine is switched off for it.
    type: str
    choices: [found, published]
    default: found
  directory:
    description: The directory that is the image. It is replaced as a whole.
    type: path
    required: true
  source:
    description:
      - The image to start from, a qcow2 file that boots by itself, or a directory that is an image. Its path, size and
        date decide, too, whether the image must be built again.
    type: path
    required: true
  hypervisor:
    description: Where the build machine is, as libvirt's URI.
    type: str
    default: qemu:///system
requirements:
  - libvirt-python
"""

EXAMPLES = r"""
- name: See whether the image must be built
  turnkey.hpc.disk_image:
    directory: ~/.cache/turnkey/images/turnkey-node-debian12
    source: ~/Downloads/debian-12-genericcloud-amd64.qcow2
    input_paths: ["{{ role_path }}/tasks"]
  register: image
"""

RETURN = r"""
exists:
  description: Whether the image with these inputs is there.
  type: bool
  returned: success
inputs:
  description: Hash of the inputs.
  type: str
  returned: success
build:
  description: Name for a cluster of one machine that builds the image. It says until when.
  type: str
  returned: when O(state=found)
  sample: build-1799999999000
removed:
  description: Forgotten builds that were removed.
  type: list
  elements: str
  returned: success
size_mb:
  description: Size of the image in MB.
  type: int
  returned: when O(state=published)
"""

import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._disk_image import DiskImage
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._images import (
    BUILD_OPTIONS,
    INPUT_OPTIONS,
    build_name,
    expired_builds,
    inputs_hash,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt import LibvirtProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_image import read_image, start_of
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan_absent

REMEDY = "Let base_image_from be a qcow2 file, or a directory that image.yml wrote."


def run_local(argv: list[str]) -> tuple[int, str, str]:
    """Run a command on the control node."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def run(
    params: Mapping[str, Any], check_mode: bool, connect: Callable[[], LibvirtProvider], now: float
) -> dict[str, Any]:
    """Do what ``params`` asks for. The hypervisor is asked only if there is something to do."""
    source, image = read_image(params["source"], REMEDY), DiskImage(Path(params["directory"]))
    paths, values = [Path(path) for path in params["input_paths"]], [*params["input_values"], source.version]
    inputs = params["inputs"] or inputs_hash(paths, values)
    result: dict[str, Any] = {"inputs": inputs, "exists": True, "removed": [], "changed": True}
    if params["state"] == "published":
        if check_mode:
            return result
        facts = {"name": image.directory.name, "hash": inputs, **start_of(source)}
        files = {name: path for name, path in source.files().items() if path != source.disk}
        image.publish_disk(partial(connect().export_disk, params["build"]), facts, files)
        return {**result, "size_mb": sum(path.stat().st_size for path in image.directory.iterdir()) // 1_000_000}
    result["build"] = build_name(now, params["hours"])
    if (image.describe() or {}).get("hash") == inputs:
        return {**result, "changed": False}
    forgotten: list[str] = []
    if not check_mode:
        image.check_space()
        provider = connect()
        forgotten = expired_builds(provider.clusters(), now)
        for name in forgotten:
            provider.apply(plan_absent(provider.discover(name)))
    return {**result, "exists": False, "removed": forgotten}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "state": {"type": "str", "choices": ["found", "published"], "default": "found"},
            "directory": {"type": "path", "required": True},
            "source": {"type": "path", "required": True},
            **INPUT_OPTIONS,
            **BUILD_OPTIONS,
            "hypervisor": {"type": "str", "default": "qemu:///system"},
        },
        required_if=[("state", "published", ["inputs", "build"])],
        supports_check_mode=True,
    )
    place = {"hypervisors": [module.params["hypervisor"]]}
    with errors_end(module):
        connect = partial(LibvirtProvider.connect, place, run_local)
        result = run(module.params, module.check_mode, connect, time.time())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
