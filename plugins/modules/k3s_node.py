#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_node
short_description: A node of a k3s cluster, its labels and taints, out of service and back
version_added: "0.1.0"
description:
  - Runs on a server of the cluster, for any of its nodes. Waits until the node is ready, gives it its labels and
    taints, drains it, or deletes it.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Also where k3s is not installed yet; then the node is reported as changed. It does not wait.
  diff_mode:
    support: full
    description: Shows the calls of kubectl.
  idempotent:
    support: full
    description: What a node has already is not set again.
options:
  name:
    description: Name of the node.
    type: str
    required: true
  state:
    description:
      - V(ready), it is ready and has its labels and taints. One that was cordoned stays so.
      - V(drained), it gets no pods any more, and those that run there have moved.
      - V(resumed), it is ready, and gets pods again.
      - V(absent), the cluster doesn't know it. A server leaves etcd, unless the others would then be too few.
    type: str
    choices: [ready, drained, resumed, absent]
    default: ready
  labels:
    description: Labels that it shall have. One that is V(null) is removed.
    type: dict
    default: {}
  taints:
    description: Taints that it shall have, as C(KEY=VALUE:EFFECT). One that ends in C(-) is removed.
    type: list
    elements: str
    default: []
  reason:
    description:
      - Why it is drained. The node gets it as the label C(turnkey.hpc/drained-for), unless it was cordoned before.
      - With O(state=resumed), only a node with just this reason is resumed. If it is not given, any is.
    type: str
    default: ""
  version:
    description: Version that it must run, with O(state=ready) and O(state=resumed). Any without it.
    type: str
    default: ""
  wait_seconds:
    description: How long to wait until it is ready, or drained.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Take an agent out of service before its disks are changed
  turnkey.hpc.k3s_node:
    name: node7
    state: drained
  delegate_to: head
"""

RETURN = r"""
calls:
  description: What kubectl was, or would be, told.
  returned: success
  type: list
  elements: str
  sample: [cordon node7]
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.host import Host
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.nodes import Node, Wish, plan, refuse_removal
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner

DRAINED_FOR = "turnkey.hpc/drained-for"


def find(host: Host, name: str) -> dict[str, Node]:
    """Return the nodes of the cluster."""
    nodes = host.nodes()
    if nodes is None:
        err = host.kubectl("get", "nodes")[2].strip()[-300:]
        raise HpcError(
            f"The cluster doesn't answer about {name}: {err}.", "see that most servers run ('systemctl status k3s')."
        )
    return nodes


def wait_ready(host: Host, given: dict[str, Any]) -> Node:
    """Return the node once it is ready with its version."""
    name, version = given["name"], given["version"]
    end = time.monotonic() + given["wait_seconds"]
    while True:
        node = (host.nodes() or {}).get(name)
        if node and node.ready and version in ("", node.version):
            return node
        if time.monotonic() > end:
            state = (
                "unknown to the cluster"
                if node is None
                else f"{'ready' if node.ready else 'not ready'} with {node.version}"
            )
            raise HpcError(
                f"The node {name} is {state} after {given['wait_seconds']} s.",
                f"look at k3s there: 'journalctl -u k3s-agent' on {name}.",
            )
        time.sleep(0.5)  # poll interval


def calls_for(given: dict[str, Any], nodes: dict[str, Node]) -> list[list[str]]:
    """Return what kubectl has to be told. Pure."""
    state, name = given["state"], given["name"]
    node = nodes.get(name)
    reason, mark = given["reason"], node.labels.get(DRAINED_FOR) if node else None
    if state == "drained":
        label = [["label", "node", name, "--overwrite", f"{DRAINED_FOR}={reason}"]]
        # Again, too: a drain that was cut off has left pods.
        drain = ["drain", name, "--ignore-daemonsets", "--delete-emptydir-data", f"--timeout={given['wait_seconds']}s"]
        return label * bool(node and reason and not node.cordoned) + [drain] * bool(node)
    if state == "absent":
        return [["delete", "node", name, "--wait=false"]] if node else []
    if state == "resumed" and (reason in ("", mark)):
        wish = Wish({**given["labels"], DRAINED_FOR: None}, given["taints"], cordoned=False)
    else:
        wish = Wish(given["labels"], given["taints"])
    return plan(node or Node(name, ready=False), wish)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["ready", "drained", "resumed", "absent"], "default": "ready"},
            "labels": {"type": "dict", "default": {}},
            "taints": {"type": "list", "elements": "str", "default": []},
            "reason": {"type": "str", "default": ""},
            "version": {"type": "str", "default": ""},
            "wait_seconds": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    given["labels"] = {key: value if value is None else str(value) for key, value in given["labels"].items()}
    host = Host(runner(module.run_command))
    with errors_end(module):
        if module.check_mode and host.nodes() is None:
            module.exit_json(changed=True, calls=[])
        if given["state"] in ("ready", "resumed") and not module.check_mode:
            wait_ready(host, given)
        nodes = find(host, given["name"])
        if given["state"] == "absent":
            problem = refuse_removal(given["name"], nodes.values())
            host.refuse_if_any([problem] if problem else [])
        todo = calls_for(given, nodes)
        for call in todo if not module.check_mode else []:
            # A drain takes as long as pods need to move.
            code, _out, err = host.run(["/usr/local/bin/k3s", "kubectl", *call], None)
            if code:
                raise HpcError(
                    f"'kubectl {' '.join(call)}' failed: {err.strip()[-600:]}", "mend what it says, and run again."
                )
    calls = [" ".join(call) for call in todo]
    # To drain a node that is drained changes nothing.
    again = given["state"] == "drained" and given["name"] in nodes and nodes[given["name"]].cordoned
    result: dict[str, Any] = {"changed": bool(todo) and not again, "calls": calls}
    if module._diff:
        result["diff"] = {"prepared": "".join(f"kubectl {call}\n" for call in calls)}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
