#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_images
version_added: "0.1.0"
short_description: Loads the images of an airgap bundle into a container registry
description:
  - Compares the digests of the images in a copy of a bundle with those in a registry, and loads what differs. Each file
    is checked against the manifest before.
  - An image keeps its name, without the host of the registry that it came from, so C(docker.io/library/busybox:1.36)
    becomes C(REGISTRY/library/busybox:1.36). Its digest stays the same.
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - skopeo on the host
attributes:
  check_mode:
    support: full
    description: Also while there is no bundle and no registry yet.
  diff_mode:
    support: full
    description: Lists the images that are loaded.
  idempotent:
    support: full
    description: An image with the same digest is not loaded again.
options:
  bundle:
    description: Directory of the copy on the host.
    type: path
    required: true
  registry:
    description: The registry, as C(ADDRESS:PORT).
    type: str
    required: true
  user:
    description: Account of the registry.
    type: str
    required: true
  password:
    description: Its password.
    type: str
    required: true
  ca_file:
    description: Certificate, on the host, of the authority that the registry's certificate is from.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Load the images of the bundle
  turnkey.hpc.registry_images:
    bundle: /srv/turnkey-mirror
    registry: 10.20.0.10:5000
    user: turnkey
    password: "{{ lookup('ansible.builtin.file', '.secrets/container_registry/password') }}"
    ca_file: /etc/turnkey/ca.crt
"""

RETURN = r"""
loaded:
  description: Names of the images that were, or would be, loaded.
  returned: success
  type: list
  elements: str
  sample: ["library/busybox:1.36"]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._registry import Registry, images_of, plan, repository
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        {
            "bundle": {"type": "path", "required": True},
            "registry": {"type": "str", "required": True},
            "user": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "ca_file": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    given = module.params
    bundle, ca = Path(given["bundle"]), Path(given["ca_file"])
    if module.check_mode and not (ca.exists() and bundle.exists()):
        module.exit_json(changed=False, loaded=[])
    with errors_end(module):
        files = images_of(bundle)
        run = runner(module.run_command)
        with Registry.access(run, given["registry"], given["user"], given["password"], ca) as registry:
            there = {repository(file.reference): registry.digest(repository(file.reference)) for file in files}
            loads = plan(files, there)
            for load in [] if module.check_mode else loads:
                registry.load(bundle, load)
    names = [load.name for load in loads]
    result = {"changed": bool(names), "loaded": names}
    if module._diff:
        result["diff"] = {"before": "", "after": "".join(f"+ {name}\n" for name in names)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
