#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_machines
short_description: Creates and removes the machines of a cluster
version_added: "0.1.0"
description:
  - Makes the network, the volumes and the machines of one cluster what they should be, wherever machines can be made.
  - It runs on the control node. What exists is found by the cluster's labels; there is no state file, so a run that
    was cut off is completed by the next one.
  - One machine, the bastion, has a published SSH port; all others are reached through it. The module waits until each
    machine accepts logins, and learns its SSH host key from the provider, not over the network.
  - Before it changes anything it reports all problems at once.
  - Removing the cluster removes only what carries its label.
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Shows what would be created, started, replaced or removed, and changes nothing.
  diff_mode:
    support: full
    description: Shows each resource and each file in O(access_dir) before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
requirements:
  - docker (Python package), for O(provider=docker)
options:
  provider:
    description: Where the machines are made.
    type: str
    choices: [docker]
    default: docker
  state:
    description: Whether the cluster's machines should exist. V(absent) removes its volumes, and so its data, too.
    type: str
    choices: [present, absent]
    default: present
  cluster_name:
    description: Name of the cluster, 1 to 20 characters V(a-z), V(0-9) and V(-).
    type: str
    required: true
  network:
    description: Network of the cluster in CIDR notation. Required for O(state=present).
    type: str
  machine_sets:
    description:
      - Sets of machines. Required for O(state=present).
      - Machines of the cluster that are in no set any more are removed. Volumes stay.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the set, and of its machine where O(machine_sets[].count) is left out.
        type: str
        required: true
      count:
        description: Number of machines, called V(name1), V(name2) and so on. Left out, the set is one machine.
        type: int
      first_host:
        description:
          - Number of the first machine's address within the network; the others follow.
          - Default is the next free one from 10 on. Give it to sets that will grow, so that no other set moves.
        type: int
      groups:
        description: Inventory groups of the machines.
        type: list
        elements: str
        default: []
      image:
        description: Image that the machines start from.
        type: str
        required: true
      cpus:
        description: Processors that a machine may use. Left out, there is no limit.
        type: float
      memory_mb:
        description: Memory that a machine may use, in MB. Left out, there is no limit.
        type: int
      bastion:
        description: Whether the set's machine is the one that is reached from outside. Exactly one machine must be.
        type: bool
        default: false
      volumes:
        description: Volumes of the cluster that the machines have. Machines that list the same name share the volume.
        type: list
        elements: dict
        default: []
        suboptions:
          name:
            description: Name of the volume within the cluster.
            type: str
            required: true
          path:
            description: Where the machines have it.
            type: path
            required: true
  bastion_bind:
    description: Address of the provider's host where the bastion's SSH port is published.
    type: str
    default: 127.0.0.1
  bastion_port:
    description: Port where the bastion's SSH port is published.
    type: int
    default: 2222
  admin_public_key:
    description:
      - Text of the SSH public key that may log in to the machines as their first user.
      - Default is the public half of the key pair V(operator_ed25519) in O(access_dir), made there if absent.
    type: str
  access_dir:
    description:
      - Directory on the control node for the operator's key pair, C(ssh_config) and C(known_hosts), so that
        C(ssh -F access_dir/ssh_config NAME) reaches every machine. It is made with mode 0700.
      - O(state=absent) removes the files that this module made.
    type: path
  allow_replace:
    description:
      - Whether machines may be destroyed and made anew where a change can't be made otherwise.
      - Without it such a change is refused, naming the machines.
    type: bool
    default: false
  confirm:
    description: Must be the cluster's name when O(state=absent) is to remove anything.
    type: str
    default: ""
  min_free_disk_gb:
    description: Least free space on the provider's disk to create machines.
    type: float
    default: 2
  ready_timeout_seconds:
    description: How long to wait for the machines to accept logins.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: A head and three nodes that share a volume
  turnkey.hpc.cluster_machines:
    cluster_name: demo
    network: 10.213.77.0/24
    access_dir: "{{ inventory_dir }}/.secrets/access"
    machine_sets:
      - name: head
        image: turnkey/node:bookworm
        groups: [controller]
        bastion: true
        volumes:
          - {name: shared, path: /shared}
      - name: node
        count: 3
        first_host: 11
        image: turnkey/node:bookworm
        groups: [compute]
        volumes:
          - {name: shared, path: /shared}

- name: All of it gone, data too
  turnkey.hpc.cluster_machines:
    state: absent
    cluster_name: demo
    access_dir: "{{ inventory_dir }}/.secrets/access"
    confirm: demo
"""

RETURN = r"""
machines:
  description:
    - The machines, in the order of the sets.
    - In check mode the host keys of machines that don't run yet are placeholders.
  returned: success
  type: list
  elements: dict
  sample:
    - name: head
      address: 10.213.77.10
      groups: [controller]
      bastion: true
      public_address: 127.0.0.1
      public_port: 2222
      host_key: ssh-ed25519 AAAAC3Nz...
      login_user: root
actions:
  description: What was done or, in check mode, would be.
  returned: always
  type: list
  elements: str
  sample: ["create network main", "create machine head"]
summary:
  description: Lines for people, with names, addresses, groups and how to log in.
  returned: success
  type: list
  elements: str
  sample: ["head   10.213.77.10  controller", "Log in: ssh -F .secrets/access/ssh_config head"]
"""

import dataclasses
import subprocess
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.access import Access
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    ClusterSpec,
    Machine,
    Provider,
    check_cluster_name,
    expand_spec,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker import DockerProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import (
    Action,
    ApplyError,
    ReplacementRefused,
    diff,
    plan,
    plan_absent,
)

PROVIDERS = {"docker": DockerProvider}
HOST_KEY_TO_LEARN = "ssh-ed25519 (learned when the machine runs)"


def run_local(argv: list[str]) -> tuple[int, str, str]:
    """Run a command on the control node."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def present(params: Mapping[str, Any], provider: Provider | None, access: Access | None, check: bool) -> dict[str, Any]:
    """Make the machines what they should be. ``provider`` is None to have it connected here."""
    own_key = access is not None and not params["admin_public_key"]
    key = params["admin_public_key"] or (access.public_key() if access else "")
    provider, spec = _connected_and_expanded(params, provider, key)
    state = provider.discover(spec.cluster)
    problems = provider.check(spec, state)
    actions: list[Action] = []
    try:
        actions = plan(provider.desired(spec), state, allow_replace=params["allow_replace"])
    except ReplacementRefused as error:
        problems.append(str(error))
    if problems:
        raise InvalidInput(join_problems(problems))
    shown = diff(actions)
    if check:
        machines = _machines_expected(provider, spec, actions, params["ready_timeout_seconds"])
    else:
        if access and own_key and not key:
            spec = dataclasses.replace(spec, admin_public_key=access.make_key())
            actions = plan(provider.desired(spec), state, allow_replace=params["allow_replace"])
        provider.apply(actions)
        machines = _machines_found(provider, spec, params["ready_timeout_seconds"])
    changes = access.changes(machines, own_key=own_key) if access else []
    if access and not check:
        access.apply(changes)
    return {
        "changed": bool(actions or changes),
        "actions": [str(action) for action in actions],
        "diff": [shown, *(change.diff() for change in changes)],
        "machines": [_returned(machine) for machine in machines],
        "summary": _summary(machines, access),
    }


def absent(params: Mapping[str, Any], provider: Provider | None, access: Access | None, check: bool) -> dict[str, Any]:
    """Remove everything of the cluster."""
    cluster = params["cluster_name"]
    problems = check_cluster_name(cluster)
    if problems:
        raise InvalidInput(join_problems(problems))
    provider = provider or PROVIDERS[params["provider"]].connect(run_local)
    actions = plan_absent(provider.discover(cluster))
    if actions and not check and params["confirm"] != cluster:
        machines = [action.key for action in actions if action.kind == "machine"]
        volumes = [action.key for action in actions if action.kind == "volume"]
        raise InvalidInput(
            f"Removing cluster {cluster} was not confirmed (got {params['confirm']!r}). It would destroy the machines "
            f"{', '.join(machines) or 'none'} with all that is on their disks, and the volumes "
            f"{', '.join(volumes) or 'none'} with their data.",
            f"If that is meant: -e destroy_confirm={cluster}",
        )
    if not check:
        provider.apply(actions)
    changes = access.removals() if access else []
    if access and not check:
        access.apply(changes)
    return {
        "changed": bool(actions or changes),
        "actions": [str(action) for action in actions],
        "diff": [diff(actions), *(change.diff() for change in changes)],
        "machines": [],
        "summary": [f"Nothing of cluster {cluster} is left."] if not check else [],
    }


def _connected_and_expanded(
    params: Mapping[str, Any], provider: Provider | None, key: str
) -> tuple[Provider, ClusterSpec]:
    """Connect and validate, so that problems of both are reported together."""
    problems: list[str] = []
    spec: ClusterSpec | None = None
    try:
        options = {"min_free_disk_gb": params["min_free_disk_gb"]}
        spec = expand_spec({**params, "admin_public_key": key, "options": options})
    except HpcError as error:
        problems.append(str(error))
    try:
        provider = provider or PROVIDERS[params["provider"]].connect(run_local)
    except HpcError as error:
        problems.append(str(error))
    if problems or provider is None or spec is None:
        raise InvalidInput(join_problems(problems))
    return provider, spec


def _machines_found(provider: Provider, spec: ClusterSpec, timeout_seconds: float) -> list[Machine]:
    names = [machine.name for machine in spec.machines]
    found = {machine.name: machine for machine in provider.list_instances(spec.cluster)}
    keys = provider.host_keys(spec.cluster, names, timeout_seconds)
    return [dataclasses.replace(found[name], host_key=keys[name]) for name in names]


def _machines_expected(
    provider: Provider, spec: ClusterSpec, actions: list[Action], timeout_seconds: float
) -> list[Machine]:
    """Return the machines as they would be, with the host keys of those that keep running."""
    found = {machine.name: machine for machine in provider.list_instances(spec.cluster)}
    touched = {action.key for action in actions if action.kind == "machine" and action.verb != "update"}
    kept = [machine.name for machine in spec.machines if machine.name not in touched]
    keys = provider.host_keys(spec.cluster, kept, timeout_seconds)
    return [
        dataclasses.replace(found[item.name], host_key=keys[item.name])
        if item.name in keys
        else Machine(
            name=item.name,
            id="",
            address=item.address,
            set_name=item.set_name,
            groups=item.groups,
            running=True,
            login_user=provider.login_user,
            bastion=item.bastion,
            public_address=spec.bastion_bind if item.bastion else "",
            public_port=spec.bastion_port if item.bastion else 0,
            host_key=HOST_KEY_TO_LEARN,
        )
        for item in spec.machines
    ]


def _returned(machine: Machine) -> dict[str, Any]:
    names = ("name", "address", "bastion", "public_address", "public_port", "host_key", "login_user")
    return {**{name: getattr(machine, name) for name in names}, "groups": list(machine.groups)}


def _summary(machines: list[Machine], access: Access | None) -> list[str]:
    width = max(len(machine.name) for machine in machines)
    lines = [f"{m.name:<{width}}  {m.address:<15}  {', '.join(m.groups)}".rstrip() for m in machines]
    bastion = next(machine for machine in machines if machine.bastion)
    if access:
        return [*lines, f"Log in: ssh -F {access.directory}/ssh_config {bastion.name}"]
    return [*lines, f"Log in: ssh -p {bastion.public_port} {bastion.login_user}@{bastion.public_address}"]


def main() -> None:
    """Run as a module."""
    volume = {"name": {"type": "str", "required": True}, "path": {"type": "path", "required": True}}
    machine_set = {
        "name": {"type": "str", "required": True},
        "count": {"type": "int"},
        "first_host": {"type": "int"},
        "groups": {"type": "list", "elements": "str", "default": []},
        "image": {"type": "str", "required": True},
        "cpus": {"type": "float"},
        "memory_mb": {"type": "int"},
        "bastion": {"type": "bool", "default": False},
        "volumes": {"type": "list", "elements": "dict", "default": [], "options": volume},
    }
    module = AnsibleModule(
        argument_spec={
            "provider": {"type": "str", "choices": list(PROVIDERS), "default": "docker"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "cluster_name": {"type": "str", "required": True},
            "network": {"type": "str"},
            "machine_sets": {"type": "list", "elements": "dict", "options": machine_set},
            "bastion_bind": {"type": "str", "default": "127.0.0.1"},
            "bastion_port": {"type": "int", "default": 2222},
            "admin_public_key": {"type": "str", "no_log": False},
            "access_dir": {"type": "path"},
            "allow_replace": {"type": "bool", "default": False},
            "confirm": {"type": "str", "default": ""},
            "min_free_disk_gb": {"type": "float", "default": 2},
            "ready_timeout_seconds": {"type": "int", "default": 120},
        },
        required_if=[
            ("state", "present", ("network", "machine_sets")),
            ("state", "present", ("access_dir", "admin_public_key"), True),
        ],
        supports_check_mode=True,
    )
    params = module.params
    directory = params["access_dir"]
    access = Access(directory, params["cluster_name"], run_local) if directory else None
    work = present if params["state"] == "present" else absent
    try:
        result = work(params, None, access, module.check_mode)
    except ApplyError as error:
        module.fail_json(msg=str(error), actions=[str(action) for action in error.done], changed=bool(error.done))
    except HpcError as error:
        module.fail_json(msg=str(error), actions=[])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
