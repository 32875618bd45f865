#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_acceptance
short_description: Proves that a k3s cluster works
version_added: "0.1.0"
description:
  - Runs on a server of the cluster. Runs a pod on every node from an image of the private registry, and checks the
    network between pods of different nodes, names, a volume and an ingress.
  - Everything is made in the namespace C(turnkey-acceptance), which is removed again.
  - It has never run on a real cluster, only with answers that its tests make up, and on a stand-in, of which it says
    that it doesn't work.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: none
    description: Is skipped in check mode, because a proof has to make pods.
  diff_mode:
    support: none
    description: Leaves nothing changed, so there is nothing to show.
  idempotent:
    support: full
    description: Changes nothing that lasts, however often it runs.
options:
  nodes:
    description: The nodes that there must be, with their addresses.
    type: dict
    required: true
  image:
    description: An image with the commands of busybox, as pods name it. The registry must have it.
    type: str
    required: true
  timeout_seconds:
    description: How long to wait for each thing that takes time, pods, a volume and an ingress.
    type: int
    default: 180
"""

EXAMPLES = r"""
- name: See whether the cluster works
  turnkey.hpc.k3s_acceptance:
    nodes: {head: 10.0.0.10, node1: 10.0.0.11}
    image: docker.io/library/busybox:1.36
  register: proof
"""

RETURN = r"""
ok:
  description: Whether all checks passed.
  returned: success
  type: bool
checks:
  description: One entry a check, with its C(name), C(ok), C(seconds) and C(detail).
  returned: success
  type: list
  elements: dict
"""

from collections.abc import Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.acceptance import Acceptance
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.host import PROGRAM
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def fetch(url: str, host: str) -> str:
    """Return what a URL says to somebody who asks for ``host``."""
    with open_url(url, headers={"Host": host}, timeout=10, use_proxy=False) as answer:
        return str(answer.read(65536).decode(errors="replace"))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "dict", "required": True},
            "image": {"type": "str", "required": True},
            "timeout_seconds": {"type": "int", "default": 180},
        },
        supports_check_mode=False,
    )
    run = runner(module.run_command)

    def kubectl(arguments: Sequence[str], stdin: str | None) -> tuple[int, str, str]:
        return run([PROGRAM, "kubectl", *arguments], stdin)

    checks = Acceptance(kubectl, fetch, module.params["nodes"], module.params["timeout_seconds"]).run(
        module.params["image"]
    )
    module.exit_json(changed=False, ok=all(check["ok"] for check in checks), checks=checks)


if __name__ == "__main__":
    main()
