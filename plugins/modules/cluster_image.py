#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_image
version_added: "0.1.0"
short_description: Starts, publishes and removes the build of a golden image
description:
  - Runs on the control node. The role P(turnkey.hpc.base_image#role) calls it around the installation of the other
    roles.
  - An image carries the hash of its inputs. With O(state=started) nothing is built when there is one.
  - It is an image of the Docker Engine, or a directory with a qcow2 disk that virtual machines start from, and with the
    kernel and the initrd that start it unless the disk has a loader of its own. Both are built in a container of the
    Docker Engine on the control node.
  - The bare distribution comes from C(debian:12) or C(debian:13) where the engine has it or a registry gives it, else
    from the package archive through C(mmdebstrap).
author: The turnkey.hpc founders (@turnkey-hpc)
extends_documentation_fragment:
  - turnkey.hpc.golden_image
  - turnkey.hpc.golden_image.build
options:
  state:
    description:
      - V(bootstrapped), the bootstrap image exists, Debian that boots and answers SSH.
      - V(started), so does the image, or a fresh build container runs.
      - V(published), the build container has become the image.
      - V(absent), there is no build container.
    type: str
    choices: [bootstrapped, started, published, absent]
    default: started
  format:
    description: V(docker) is an image of the Docker Engine, V(qcow2) the disk of a virtual machine.
    type: str
    choices: [docker, qcow2]
    default: docker
  name:
    description: Name and tag of the image; with O(format=qcow2) a name that can be a directory's.
    type: str
    required: true
  directory:
    description: For O(format=qcow2), required, the directory that is the image. It is replaced as a whole.
    type: path
  disk_gb:
    description: For O(format=qcow2), the size of the disk. The file has the size of what is in it.
    type: int
    default: 8
  boot:
    description:
      - For O(format=qcow2), what starts the kernel. With V(direct) the hypervisor does, which is quicker, and the disk
        has no partitions.
      - With V(efi) the disk has a loader of its own, C(systemd-boot).
    type: str
    choices: [direct, efi]
    default: direct
  disk_overlay:
    description: For O(format=qcow2), what is laid over the image instead of O(overlay), in the same form.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the image.
        type: path
        required: true
      content:
        description: Content of the file.
        type: str
      link:
        description: Target of the symbolic link, instead of O(disk_overlay[].content).
        type: str
      executable:
        description: Whether the file is a program.
        type: bool
        default: false
  release:
    description: Debian release.
    type: str
    required: true
  source:
    description: Where the bare distribution comes from. V(auto) tries the registry first.
    type: str
    choices: [auto, registry, mmdebstrap]
    default: auto
  mirror:
    description: Package archive for C(mmdebstrap).
    type: str
    default: http://deb.debian.org/debian
  overlay:
    description: Files and links laid over the bare distribution.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the image.
        type: path
        required: true
      content:
        description: Content of the file.
        type: str
      link:
        description: Target of the symbolic link, instead of O(overlay[].content).
        type: str
      executable:
        description: Whether the file is a program.
        type: bool
        default: false
requirements:
  - docker (PyPI)
"""

EXAMPLES = r"""
- name: See whether the image must be built, and start the build
  turnkey.hpc.cluster_image:
    name: turnkey/node:debian12
    release: "12"
    input_paths: ["{{ role_path }}/tasks"]
  register: build

- name: Make a virtual machine's disk of the build container
  turnkey.hpc.cluster_image:
    state: published
    format: qcow2
    name: turnkey-node-debian12
    directory: /var/lib/turnkey-images/turnkey-node-debian12
    release: "12"
    inputs: "{{ build.inputs }}"
    build: "{{ build.build }}"
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
  sample: 5f0c2b1c9a77d3e1
build:
  description: Name of the build, and of its container. It says until when that may last, in milliseconds since 1970.
  type: str
  returned: success
  sample: build-1763870000123
image_id:
  description: Id of the image; with O(format=qcow2) its directory.
  type: str
  returned: when it exists
size_mb:
  description: Size of the image in MB.
  type: int
  returned: when it exists
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._disk_image import BOOTS, RECIPE, DiskImage
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._images import (
    BUILD_OPTIONS,
    INPUT_OPTIONS,
    OverlayEntry,
    build_name,
    inputs_hash,
    overlay_tar,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker import connect_engine, translated
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker_image import DockerImages, ImageBuild

OVERLAY_OPTIONS = {
    "path": {"type": "path", "required": True},
    "content": {"type": "str"},
    "link": {"type": "str"},
    "executable": {"type": "bool", "default": False},
}


def facts_of(image: dict[str, Any]) -> dict[str, Any]:
    """Return what the module says of an ``image``."""
    return {"exists": True, "image_id": image["Id"], "size_mb": image["Size"] // 1_000_000}


def overlay_of(entries: list[dict[str, Any]]) -> tuple[OverlayEntry, ...]:
    """Return the ``entries`` of one of the module's options."""
    return tuple(
        OverlayEntry(entry["path"], entry["content"], entry["link"], 0o755 if entry["executable"] else 0o644)
        for entry in entries
    )


class QcowStore:
    """Disk images, with the calls that :class:`DockerImages` has for its own."""

    def __init__(self, images: DockerImages, params: dict[str, Any]) -> None:
        """Publish what a build container of ``images`` holds."""
        self._images = images
        self._params = params
        self._image = DiskImage(Path(params["directory"]), params["boot"])

    def _facts(self) -> dict[str, Any]:
        size = sum(path.stat().st_size for path in self._image.directory.iterdir())
        return {"Id": str(self._image.directory), "Size": size, "RepoTags": []}

    def find(self, _kind: str, inputs: str) -> dict[str, Any] | None:
        """Return the image if it was made from these ``inputs``."""
        description = self._image.describe()
        return self._facts() if description and description.get("hash") == inputs else None

    def publish(self, build: ImageBuild, inputs: str) -> dict[str, Any]:
        """Make the image of the build container."""
        facts = {"name": build.name, "release": build.release, "hash": inputs, "first_boot": "turnkey"}
        overlay = overlay_of(self._params["disk_overlay"])
        removed = [entry.path for entry in build.overlay] + ["/.dockerenv"]
        archive = self._images.export_build(build)
        self._image.publish(archive, overlay, removed, facts, self._params["disk_gb"])
        return self._facts()


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the build into the wanted state and return the module's result."""
    name, qcow2 = params["name"], params["format"] == "qcow2"
    overlay = overlay_of(params["overlay"])
    own = params["build"] or build_name(time.time(), params["hours"])
    build = ImageBuild(name, params["release"], params["mirror"], params["source"], own, overlay)
    values = [build.bootstrap_hash(), build.codename, *params["input_values"]]
    if qcow2:
        values += [
            RECIPE,
            params["boot"],
            str(params["disk_gb"]),
            overlay_tar(list(overlay_of(params["disk_overlay"]))).hex(),
        ]
    inputs = params["inputs"] or inputs_hash([Path(path) for path in params["input_paths"]], values)
    result = {"changed": False, "exists": False, "inputs": inputs, "build": own}
    images = DockerImages(connect_engine(timeout_seconds=900))
    store: DockerImages | QcowStore = QcowStore(images, params) if qcow2 else images
    if params["state"] == "absent":
        return {**result, "changed": bool(images.find_build(build)) if check_mode else images.remove_build(build)}
    if params["state"] == "bootstrapped":
        changed = (
            images.find("bootstrap", build.bootstrap_hash()) is None if check_mode else images.ensure_bootstrap(build)
        )
        return {**result, "changed": changed, "exists": True}
    if params["state"] == "published" and check_mode:
        return {**result, "changed": True, "exists": True}
    image = store.find("node", inputs)
    if params["state"] == "published":
        return {**result, **facts_of(store.publish(build, inputs)), "changed": True}
    if check_mode:
        return {**result, **(facts_of(image) if image else {}), "changed": image is None}
    if qcow2 and image is not None:
        return {**result, **facts_of(image)}
    bootstrapped = images.ensure_bootstrap(build)
    if image is not None:
        return {**result, **facts_of(image), "changed": images.tag(image, build.name) or bootstrapped}
    images.start_build(build)
    return {**result, "changed": True}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "state": {
                "type": "str",
                "choices": ["bootstrapped", "started", "published", "absent"],
                "default": "started",
            },
            "format": {"type": "str", "choices": ["docker", "qcow2"], "default": "docker"},
            "name": {"type": "str", "required": True},
            "directory": {"type": "path"},
            "disk_gb": {"type": "int", "default": 8},
            "boot": {"type": "str", "choices": list(BOOTS), "default": "direct"},
            "disk_overlay": {"type": "list", "elements": "dict", "default": [], "options": OVERLAY_OPTIONS},
            "release": {"type": "str", "required": True},
            "source": {"type": "str", "choices": ["auto", "registry", "mmdebstrap"], "default": "auto"},
            "mirror": {"type": "str", "default": "http://deb.debian.org/debian"},
            **INPUT_OPTIONS,
            **BUILD_OPTIONS,
            "overlay": {"type": "list", "elements": "dict", "default": [], "options": OVERLAY_OPTIONS},
        },
        required_if=[
            ("state", "published", ["inputs", "build"]),
            ("state", "absent", ["build"]),
            ("format", "qcow2", ["directory"]),
        ],
        supports_check_mode=True,
    )
    with errors_end(module), translated(f"make the image {module.params['name']}"):
        result = run(module.params, module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
