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
  - An image carries the hash of its inputs as a label. With O(state=started) nothing is built when there is one.
  - The bare distribution comes from C(debian:12) or C(debian:13) where the engine has it or a registry gives it, else
    from the package archive through C(mmdebstrap).
author: The turnkey.hpc founders (@turnkey-hpc)
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
  name:
    description: Name and tag of the image.
    type: str
    required: true
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
  input_paths:
    description: Files and directories whose contents decide whether the image must be built again.
    type: list
    elements: path
    default: []
  input_values:
    description: Further values that decide it.
    type: list
    elements: str
    default: []
  inputs:
    description: Hash of the inputs, as O(state=started) returned it. Needed to publish.
    type: str
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
attributes:
  check_mode:
    support: full
    description: Says whether the image would be built.
  diff_mode:
    support: none
    description: An image is built whole or not at all.
  idempotent:
    support: full
    description: An image with the hash of the inputs is not built again.
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
build_machine:
  description: Name of the build container.
  type: str
  returned: success
  sample: turnkey-build-debian12
image_id:
  description: Id of the image.
  type: str
  returned: when it exists
size_mb:
  description: Size of the image in MB.
  type: int
  returned: when it exists
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._images import OverlayEntry, inputs_hash
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker import connect_engine, translated
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker_image import DockerImages, ImageBuild


def facts_of(image: dict[str, Any]) -> dict[str, Any]:
    """Return what the module says of an ``image``."""
    return {"exists": True, "image_id": image["Id"], "size_mb": image["Size"] // 1_000_000}


def run(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the build into the wanted state and return the module's result."""
    overlay = tuple(
        OverlayEntry(entry["path"], entry["content"], entry["link"], 0o755 if entry["executable"] else 0o644)
        for entry in params["overlay"]
    )
    build = ImageBuild(params["name"], params["release"], params["mirror"], params["source"], overlay)
    values = [build.bootstrap_hash(), build.codename, *params["input_values"]]
    inputs = params["inputs"] or inputs_hash([Path(path) for path in params["input_paths"]], values)
    result = {"changed": False, "exists": False, "inputs": inputs, "build_machine": build.build_machine}
    images = DockerImages(connect_engine(timeout_seconds=900))
    if params["state"] == "absent":
        return {**result, "changed": bool(images.find_build(build)) if check_mode else images.remove_build(build)}
    if params["state"] == "bootstrapped":
        changed = (
            images.find("bootstrap", build.bootstrap_hash()) is None if check_mode else images.ensure_bootstrap(build)
        )
        return {**result, "changed": changed, "exists": True}
    if params["state"] == "published" and check_mode:
        return {**result, "changed": True, "exists": True}
    image = images.find("node", inputs)
    if params["state"] == "published":
        return {**result, **facts_of(images.publish(build, inputs)), "changed": True}
    if check_mode:
        return {**result, **(facts_of(image) if image else {}), "changed": image is None}
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
            "name": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "source": {"type": "str", "choices": ["auto", "registry", "mmdebstrap"], "default": "auto"},
            "mirror": {"type": "str", "default": "http://deb.debian.org/debian"},
            "input_paths": {"type": "list", "elements": "path", "default": []},
            "input_values": {"type": "list", "elements": "str", "default": []},
            "inputs": {"type": "str"},
            "overlay": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str"},
                    "link": {"type": "str"},
                    "executable": {"type": "bool", "default": False},
                },
            },
        },
        required_if=[("state", "published", ["inputs"])],
        supports_check_mode=True,
    )
    try:
        with translated(f"make the image {module.params['name']}"):
            result = run(module.params, module.check_mode)
    except HpcError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
