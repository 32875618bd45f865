#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: slurm_config
short_description: Configure Slurm's controllers and put the changes into force
version_added: "0.1.0"
description:
  - Writes C(slurm.conf), C(cgroup.conf), C(gres.conf), C(topology.conf) and their like in C(/etc/slurm) on all of
    O(controllers), which hand them out to the nodes. One task does it for all, run once, also where C(--limit) leaves
    the controllers out of the play.
  - A key that the installed release doesn't know, or that belongs to the caller (O(owned)), is an error before
    anything is written. All problems are told at once.
  - New files are tried with the real slurmctld, in a network of its own, before they replace the old ones. If it
    refuses them, its own words are the error, and nothing was changed.
  - The running slurmctld then gets the least that does, C(scontrol update), C(scontrol reconfigure), or a restart. Jobs
    live on through all of them. A run that is cut off in between is completed by the next.
  - Numbers of node names are kept free, as nodes with the state FUTURE. A node that joins or leaves with the hardware
    of its kind changes the lists of the partitions by C(scontrol update), so no daemon is restarted or reconfigured.
  - Fixed nodes whose kind doesn't declare CPUs and memory are measured once, in the run that adds them, by
    M(turnkey.hpc.slurm_hardware_info). The first controller remembers it in C(/var/lib/turnkey/slurm).
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Works also where Slurm isn't installed yet, if O(release) says which it will be. Tries no daemon then.
  diff_mode:
    support: full
    description: Shows each file before and after.
  idempotent:
    support: full
    description: A second run asks no compute node, writes nothing and restarts nothing.
options:
  state:
    description: With V(absent) the files are taken away, and what was there before comes back.
    type: str
    choices: [present, absent]
    default: present
  cluster_name:
    description: C(ClusterName).
    type: str
    required: true
  controllers:
    description: The controllers, the primary one first.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the host in the inventory and in Slurm.
        type: str
        required: true
      address:
        description: Its address, if not that of its name.
        type: str
  nodes:
    description: The fixed nodes, as a host list such as V(node[1-16],gpu1) or as a list of names of the inventory.
    type: raw
    default: []
  kinds:
    description:
      - Kinds of nodes, each with a C(name), its C(nodes) as a host list, and any key of Slurm's NodeName lines. Case
        and underscores don't matter, as in C(cores_per_socket). C(memory_mb) is RealMemory.
      - One kind may have no C(nodes). It has those that no other kind has.
      - Names of C(nodes) that are not among O(nodes) are kept free for nodes to come, unless the kind has a C(state).
      - A kind with a C(provider) and a C(machine) is elastic. What it doesn't declare of CPUs and memory comes from its
        provider, see O(machines).
    type: list
    elements: dict
    default: []
  machines:
    description:
      - Where the machines of elastic kinds come from, C(cloud) and C(libvirt) as the variables C(cluster_cloud) and
        C(cluster_libvirt). The control node asks a cloud what its instance types have, with the credentials that the
        SDK finds there, and only for kinds that don't declare CPUs and memory themselves.
    type: dict
    default: {}
  partitions:
    description:
      - Partitions, each with a C(name), its C(nodes) as a host list or its C(kinds), and any key of Slurm's
        PartitionName lines, as in C(max_time). Without C(nodes) and C(kinds) it has all nodes.
    type: list
    elements: dict
    default: []
  defaults:
    description: Keys and values by file, the caller's choices. Those that only another release knows are left out.
    type: dict
    default: {}
  owned:
    description:
      - Keys and values by file that O(options) may not have. Where the value is a list, values of O(options) are
        added to it instead.
    type: dict
    default: {}
  options:
    description:
      - Keys and values by file, the user's. V(null) removes a key of O(defaults). Lists become commas.
      - C(gres.conf), C(topology.conf) and C(job_container.conf) are lists of lines, each a dict of keys and values.
    type: dict
    default: {}
  memory_factor:
    description: Part of the memory that a measured node reports which Slurm may give to jobs.
    type: float
    default: 0.95
  reserve:
    description:
      - Names are kept free in blocks of so many numbers, as in C(node[4-16]) besides C(node[1-3]), for the kind without
        C(nodes). V(0) keeps none.
      - Slurm counts the free ones in the size of the cluster that C(sreport) shows as idle.
      - Before 24.11 a node whose name was not kept free makes slurmctld restart, and from then on reconfigure.
    type: int
    default: 16
  release:
    description: The release that will be installed, such as V(22.05). The one that is installed counts more.
    type: str
  _given:
    description: Set by the action plugin. Not for use in tasks.
    type: dict
    default: {}
seealso:
  - module: turnkey.hpc.slurm_hardware_info
  - plugin: turnkey.hpc.slurm_fingerprint
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Configure the controllers
  turnkey.hpc.slurm_config:
    cluster_name: lab
    controllers:
      - {name: head, address: 10.20.0.10}
    nodes: node[1-16],gpu1
    kinds:
      - {name: gpu, nodes: "gpu[1-4]", gres: "gpu:4", features: [a100]}
    partitions:
      - {name: main, default: true, max_time: 2-00:00:00}
      - {name: gpu, kinds: [gpu]}
    owned:
      slurm.conf: {AuthType: auth/munge, SlurmUser: slurm, SlurmctldParameters: [enable_configless]}
    options:
      slurm.conf: {SchedulerParameters: [bf_continue], DefMemPerCPU: 2000}
      gres.conf:
        - {NodeName: "gpu[1-4]", Name: gpu, File: "/dev/nvidia[0-3]"}
  run_once: true
"""

RETURN = r"""
applied:
  description:
    - What was done on each controller, one of V(none), V(update), V(reconfigure), V(restart), or V(start) where
      slurmctld isn't running and reads the files when it starts.
  returned: success
  type: dict
  sample: {head: update}
reasons:
  description: What differs, in words.
  returned: success
  type: list
  elements: str
  sample: [the nodes of partition main, node4 joins]
release:
  description: The release of Slurm that the files are for.
  returned: success
  type: str
  sample: "22.05"
asked:
  description: The nodes that were measured.
  returned: success
  type: list
  elements: str
unreachable_hosts:
  description: Controllers that don't answer.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils import _config_files
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._hostlist import expand, fold
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.changes import Change
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.config import CONTROLLER_FILES, Layers, render
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.controller import CONFIG_DIR, Controller
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.nodes import fold_records, unfold_records
from ansible_collections.turnkey.hpc.plugins.module_utils._state import runner


def wanted_files(files: dict[str, str]) -> list[_config_files.WantedFile]:
    """Return the files for ``_config_files``: those without content give way to what was there before."""
    return [
        _config_files.WantedFile(f"{CONFIG_DIR}/{name}", content=files.get(name), present=name in files)
        for name in CONTROLLER_FILES
    ]


def remove(module: AnsibleModule, host: _config_files.Host, controller: Controller) -> dict[str, Any]:
    """Take the files and the records away."""
    before = host.records()
    actions, after = _config_files.plan(wanted_files({}), [], before, host.look, host.original, foretell=True)
    recorded = [name for name in ("in_force", "hardware") if controller.record(name)]
    if not module.check_mode:
        _config_files.apply(host, actions, before, after)
        for name in recorded:
            controller.save(name, {})
    diff = [action.diff for action in actions]
    return {"changed": bool(actions or recorded), "applied": "none", "hardware": [], "diff": diff}


def present(module: AnsibleModule, host: _config_files.Host, controller: Controller) -> dict[str, Any]:
    """Bring the files and the running slurmctld to what is wanted."""
    params, given = module.params, module.params["_given"]
    release = controller.release(params["release"])
    nodes = expand(params["nodes"]) if isinstance(params["nodes"], str) else [str(name) for name in params["nodes"]]
    known = unfold_records(given["known"] if "known" in given else controller.record("hardware").get("nodes") or [])
    known.update(given.get("measured") or {})
    hardware = {name: known[name] for name in nodes if name in known}
    rendered = render(
        params["cluster_name"],
        params["controllers"],
        nodes,
        params["kinds"],
        params["partitions"],
        Layers(params["defaults"], params["owned"], params["options"]),
        release,
        hardware,
        params["memory_factor"],
        params["reserve"],
        given.get("unmeasured") or [],
    )
    if rendered.missing:
        return {"changed": False, "missing": fold(rendered.missing)}
    new = rendered.files
    before = host.records()
    actions, after = _config_files.plan(
        wanted_files(new), [], before, host.look, host.original, foretell=module.check_mode
    )
    ours = [name for name in CONTROLLER_FILES if name in new or f"{CONFIG_DIR}/{name}" in before.files]
    found = {name: host.look(f"{CONFIG_DIR}/{name}") for name in ours}
    on_disk = {name: node.content.decode("utf-8", "replace") for name, node in found.items() if node.kind == "file"}
    runs = controller.runs()
    change = controller.change(new, on_disk, release) if runs else Change()
    if not given.get("primary", True) and change.step != "restart":
        # The primary controller does it for all; another reads its files when it takes over.
        change = Change()
    step = change.step if runs else "start" if actions else "none"
    if runs and change.leaving:
        controller.refuse_to_lose_jobs(change)
    if not module.check_mode:
        if actions or change.step != "none":
            controller.check(new)
        _config_files.apply(host, actions, before, after)
        if runs:
            step = controller.put_into_force(change, lambda: controller.node_names(new["slurm.conf"]), release)
        controller.save("in_force", {"release": release, "files": new})
        controller.save("hardware", {"nodes": fold_records(hardware)})
    return {
        "changed": bool(actions) or change.step != "none",
        "applied": step,
        "reasons": change.reasons,
        "release": release,
        "hardware": fold_records(hardware),
        "diff": [action.diff for action in actions],
    }


def main() -> None:
    """Run the module."""
    controller = {"name": {"type": "str", "required": True}, "address": {"type": "str"}}
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cluster_name": {"type": "str", "required": True},
            "controllers": {"type": "list", "elements": "dict", "required": True, "options": controller},
            "nodes": {"type": "raw", "default": []},
            "kinds": {"type": "list", "elements": "dict", "default": []},
            "machines": {"type": "dict", "default": {}},
            "partitions": {"type": "list", "elements": "dict", "default": []},
            "defaults": {"type": "dict", "default": {}},
            "owned": {"type": "dict", "default": {}},
            "options": {"type": "dict", "default": {}},
            "memory_factor": {"type": "float", "default": 0.95},
            "reserve": {"type": "int", "default": 16},
            "release": {"type": "str"},
            "_given": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    run = runner(module.run_command)
    act = present if module.params["state"] == "present" else remove
    with errors_end(module):
        result = act(module, _config_files.Host(run), Controller(run))
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
