#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cloud_image
version_added: "0.1.0"
short_description: Finds, makes and prunes golden images of a cloud
description:
  - Runs on the control node. The role P(turnkey.hpc.base_image#role) calls it around the installation of the other
    roles on a build machine, which M(turnkey.hpc.cluster_machines) makes and removes.
  - An image carries the hash of its inputs as a tag, and its name ends in it. An image with the same inputs is not made
    twice.
  - With O(state=found) it also removes build machines whose time is over, since the runs that began them were killed.
    They are known by their names, V(build-) and ten digits; call no other cluster so.
  - Credentials come from where the cloud's own tools look for them (environment, profile, role of the instance).
author: The turnkey.hpc founders (@turnkey-hpc)
extends_documentation_fragment:
  - turnkey.hpc.golden_image
  - turnkey.hpc.golden_image.build
options:
  state:
    description:
      - V(found), tells whether the image exists, and a name for a cluster that is to build it.
      - V(published), the only machine of O(build) has become the image; versions that are too many are gone.
    type: str
    choices: [found, published]
    default: found
  provider:
    description: The cloud.
    type: str
    required: true
    choices: [alicloud, aws]
  region:
    description: Region, as the cloud calls it.
    type: str
    required: true
  name:
    description: What the versions of the image have in common, up to 63 characters V(a-z), V(0-9) and V(-).
    type: str
    required: true
  keep:
    description: How many versions of the image stay. One that a machine was made from stays in any case.
    type: int
    default: 3
requirements:
  - boto3 (Python package), for O(provider=aws)
  - alibabacloud_ecs20140526 and alibabacloud_vpc20160428 (Python packages), for O(provider=alicloud)
"""

EXAMPLES = r"""
- name: See whether the image must be built
  turnkey.hpc.cloud_image:
    provider: alicloud
    region: cn-hangzhou
    name: turnkey-node-debian12
    input_paths: ["{{ role_path }}/tasks"]
  register: image
"""

RETURN = r"""
exists:
  description: Whether the image with these inputs is there.
  type: bool
  returned: success
image:
  description: Name of the image with these inputs.
  type: str
  returned: success
  sample: turnkey-node-debian12-86cc30fffb3ef03c
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
  description: Versions of the image and forgotten builds that were removed.
  type: list
  elements: str
  returned: success
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._images import (
    BUILD_OPTIONS,
    INPUT_OPTIONS,
    build_name,
    expired_builds,
    inputs_hash,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud_image import ImageCloud
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import CLOUD_PROVIDERS, connect_cloud


def run(params: Mapping[str, Any], check_mode: bool, provider: ImageCloud, now: float) -> dict[str, Any]:
    """Do what ``params`` asks for."""
    inputs = params["inputs"] or inputs_hash([Path(path) for path in params["input_paths"]], params["input_values"])
    result: dict[str, Any] = {"inputs": inputs, "image": f"{params['name']}-{inputs}", "removed": []}
    if params["state"] == "published":
        if check_mode:
            return {**result, "exists": True, "changed": True}
        provider.publish(params["build"], params["name"], inputs)
        removed = [image.name for image in provider.prune(params["name"], params["keep"])]
        return {**result, "exists": True, "changed": True, "removed": removed}
    forgotten = expired_builds(provider.clusters(), now) if check_mode else provider.sweep(now)
    exists = provider.published(params["name"], inputs)
    return {
        **result,
        "exists": exists,
        "build": build_name(now, params["hours"]),
        "removed": forgotten,
        "changed": bool(forgotten) or not exists,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "state": {"type": "str", "choices": ["found", "published"], "default": "found"},
            "provider": {"type": "str", "required": True, "choices": list(CLOUD_PROVIDERS)},
            "region": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            **INPUT_OPTIONS,
            **BUILD_OPTIONS,
            "keep": {"type": "int", "default": 3},
        },
        required_if=[("state", "published", ["inputs", "build"])],
        supports_check_mode=True,
    )
    with errors_end(module):
        provider = connect_cloud(module.params["provider"], {"region": module.params["region"]})
        if not isinstance(provider, ImageCloud):
            raise InvalidInput(f"provider {module.params['provider']} can't make images yet.", "Give an image's id.")
        result = run(module.params, module.check_mode, provider, time.time())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
