#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_service
short_description: Runs k3s with the program and configuration that are on disk, and takes it off
version_added: "0.1.0"
description:
  - Starts the service, or restarts it if its program or configuration is another than it runs with, and waits until the
    host does its part. A server must answer, be ready with its version, and be a voter where etcd runs.
  - No start waits for systemd, which would wait without an end for a server that is down. It gives up at a deadline, or
    when the service ends again and again, and shows its last lines.
  - Refuses to restart a server without which etcd would lose its quorum, after a minute in which others may come back.
author:
  - The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Says what it would do, also where k3s is not installed yet. It does not wait.
  diff_mode:
    support: none
    description: Returns what it did instead.
  idempotent:
    support: full
    description: A service that runs with what is on disk is left alone.
options:
  part:
    description: What the host is.
    type: str
    choices: [server, agent]
    required: true
  name:
    description: Name of the node.
    type: str
    required: true
  version:
    description: Version that the node must run. Required with O(state=present).
    type: str
  config:
    description: Files that k3s reads when it starts.
    type: list
    elements: path
    default: []
  work_dir:
    description: Data directory of k3s.
    type: path
    default: /var/lib/rancher/k3s
  wait_seconds:
    description: How long the host may take until it does its part.
    type: int
    default: 300
  wipe:
    description: With O(state=absent), remove the volumes of pods too, which k3s keeps in C(storage) below O(work_dir).
    type: bool
    default: false
  state:
    description:
      - V(present), it runs with what is on disk, and is well.
      - V(awake), one that was stopped is started, and nobody waits for it. Servers of etcd that were all down need each
        other to start.
      - V(stopped), it doesn't run, until it is started again or the host is.
      - V(absent), it is stopped, and its processes, mounts, links, firewall rules and data are gone.
    type: str
    choices: [present, awake, stopped, absent]
    default: present
"""

EXAMPLES = r"""
- name: Run an agent
  turnkey.hpc.k3s_service:
    part: agent
    name: node1
    version: v1.34.2+k3s1
    config: [/etc/rancher/k3s/config.yaml, /etc/rancher/k3s/registries.yaml]
"""

RETURN = r"""
actions:
  description: What was, or would be, done.
  returned: success
  type: list
  elements: str
  sample: [daemon-reload, enable, start]
ca_sha256:
  description: On a server, the SHA-256 of the cluster's CA, with which a token pins it. Empty elsewhere.
  returned: with O(state=present)
  type: str
kept:
  description: Directories with data that a removal left.
  returned: with O(state=absent)
  type: list
  elements: str
  sample: [/var/lib/rancher/k3s/storage]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.host import PROGRAM, Host, decide, fingerprint
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.removal import find_litter, remove_data, remove_litter
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner

# Servers that were started together come one after the other.
PATIENCE_SECONDS = 60


def present(host: Host, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Let the service run with what is on disk."""
    part, name = given["part"], given["name"]
    unit = host.unit(part)
    wanted = fingerprint([PROGRAM, *given["config"]])
    verbs = decide(unit, wanted, host.records().get("running", ""))
    if not unit.exists and not check_mode:
        raise HpcError(f"There is no service of k3s ({part}).", "write its unit file first: role k3s does.")
    if "restart" in verbs and part == "server" and unit.active == "active":
        problem = host.refuse_stop(name, 0 if check_mode else min(given["wait_seconds"], PATIENCE_SECONDS))
        host.refuse_if_any([problem] if problem else [])
    if not check_mode:
        host.act(part, verbs)
        host.wait(part, name, given["version"], given["wait_seconds"])
        if host.records().get("running") != wanted:
            host.note(running=wanted)
    return {"changed": bool(verbs), "actions": verbs, "ca_sha256": host.ca_sha256()}


def awake(host: Host, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Start what is installed and was stopped."""
    unit = host.unit(given["part"])
    verbs = ["start"] if unit.exists and unit.enabled and not unit.runs else []
    if not check_mode:
        host.act(given["part"], verbs)
    return {"changed": bool(verbs), "actions": verbs}


def stopped(host: Host, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Stop it."""
    verbs = ["stop"] * host.unit(given["part"]).runs
    if not check_mode:
        host.act(given["part"], verbs)
    return {"changed": bool(verbs), "actions": verbs}


def absent(host: Host, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Stop it and take away what it left. What this collection has not installed belongs to somebody else."""
    if not host.records():
        return {"changed": False, "actions": [], "kept": []}
    unit = host.unit(given["part"])
    data = str(host.data)
    verbs = ["stop"] * unit.runs + ["disable"] * unit.enabled
    if not check_mode:
        host.act(given["part"], verbs)
        if unit.active == "failed":
            host.act(given["part"], ["reset-failed"])
    litter = find_litter(host.run, data)
    gone: list[str] = []
    kept: list[str] = []
    if not check_mode:
        remove_litter(host.run, litter, data)
        gone, kept = remove_data(data, () if given["wipe"] else ("storage",))
    return {"changed": bool(verbs or litter or gone), "actions": verbs + gone, "kept": kept}


STATES = {"present": present, "awake": awake, "stopped": stopped, "absent": absent}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "part": {"type": "str", "choices": ["server", "agent"], "required": True},
            "name": {"type": "str", "required": True},
            "version": {"type": "str"},
            "config": {"type": "list", "elements": "path", "default": []},
            "work_dir": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "wait_seconds": {"type": "int", "default": 300},
            "wipe": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": list(STATES), "default": "present"},
        },
        required_if=[("state", "present", ("version",))],
        supports_check_mode=True,
    )
    host = Host(runner(module.run_command), module.params["work_dir"])
    with errors_end(module):
        result = STATES[module.params["state"]](host, module.params, module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
