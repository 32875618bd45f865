#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_node
short_description: Takes nodes of a Slurm cluster out of service and back
version_added: "0.1.0"
description:
  - Drains, downs or resumes any number of nodes with one call of C(scontrol), and waits until no job holds them.
  - A node that is out of service already keeps its reason, as whoever gave it wants to find it again.
  - Runs on any host where C(scontrol) works as root, usually the controller.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Also where Slurm is not installed; then all nodes are reported as changed. It does not wait.
  diff_mode:
    support: full
    description: Shows the state of each node that changes.
  idempotent:
    support: full
    description: Nodes that are in the state already are left alone.
options:
  name:
    description: Names or host lists, as in C(node[1-3]).
    type: list
    elements: str
    required: true
    aliases: [nodes]
  state:
    description:
      - V(drain), no job begins there; those that run go on.
      - V(down), the jobs that run there are ended or queued again.
      - V(resume), it takes jobs again. A node that is in service is left alone.
    type: str
    choices: [drain, down, resume]
    required: true
  reason:
    description:
      - Why. Required for V(drain) and V(down); people see it in C(sinfo -R).
      - With V(resume), only nodes with just this reason are resumed. If it is not given, all are.
    type: str
    default: ""
  unknown:
    description: What to do about nodes that Slurm does not know, V(fail) before anything is changed, or V(ignore) them.
    type: str
    choices: [fail, ignore]
    default: fail
  wait_idle_seconds:
    description: How long to wait until no job holds the nodes, after V(drain) and V(down). V(0), do not wait.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Let two nodes run empty before their disks are changed
  turnkey.hpc.slurm_node:
    name: node[7-8]
    state: drain
    reason: disks are changed
    wait_idle_seconds: 7200

- name: Give them back, unless somebody drained them for another reason
  turnkey.hpc.slurm_node:
    name: node[7-8]
    state: resume
    reason: disks are changed
"""

RETURN = r"""
nodes:
  description: The nodes that were, or would be, changed, as a host list.
  returned: success
  type: str
  sample: node[7-8]
states:
  description: State of each node before, in Slurm's words.
  returned: success
  type: dict
  sample: {node7: [IDLE], node8: [DRAIN, MIXED]}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand, fold
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.node_states import Controller, Node, plan
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "list", "elements": "str", "required": True, "aliases": ["nodes"]},
            "state": {"type": "str", "choices": ["drain", "down", "resume"], "required": True},
            "reason": {"type": "str", "default": ""},
            "unknown": {"type": "str", "choices": ["fail", "ignore"], "default": "fail"},
            "wait_idle_seconds": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    state, reason, wait = (module.params[name] for name in ("state", "reason", "wait_idle_seconds"))
    run = runner(module.run_command)
    controller = Controller(run)
    with errors_end(module):
        names = list(dict.fromkeys(name for text in module.params["name"] for name in expand(text)))
        if state != "resume" and not reason:
            raise HpcError(f"state is {state} without a reason.", "say why with reason: others read it in `sinfo -R`.")
        installed = run(["scontrol", "--version"], None)[0] == 0
        if installed or not module.check_mode:
            nodes = controller.nodes(names, module.params["unknown"] == "ignore") if names else {}
        else:
            nodes = {name: Node(name, frozenset({"UNKNOWN"})) for name in names}
        going = plan(nodes.values(), state, reason) if installed else names
        if not module.check_mode:
            if going:
                controller.update(going, state, reason)
            if nodes and wait and state != "resume":
                controller.wait_until_idle(list(nodes), wait)
    result: dict[str, Any] = {"changed": bool(going), "nodes": fold(going)}
    result["states"] = {name: sorted(node.flags) for name, node in nodes.items()}
    if module._diff:
        after = f"{state} ({reason})" if reason else state
        result["diff"] = {
            "before_header": "nodes",
            "after_header": "nodes",
            "before": "".join(f"{name}: {nodes[name]}\n" for name in going),
            "after": "".join(f"{name}: {after}\n" for name in going),
        }
    module.exit_json(**result)


if __name__ == "__main__":
    main()
