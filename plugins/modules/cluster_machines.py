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
  - In a cloud it makes a network with a public subnet for the bastion and a private one for all other machines, their
    gateways and routes, and security groups that let only the networks in O(cloud.ssh_from) in, by SSH, to the bastion.
    Security rules that others have added are shown in a warning, and stay unless O(cloud.remove_foreign_rules).
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
  - boto3 (Python package), for O(provider=aws)
  - alibabacloud_ecs20140526 and alibabacloud_vpc20160428 (Python packages), for O(provider=alicloud)
  - libvirt-python and pycdlib (Python packages), for O(provider=libvirt)
options:
  provider:
    description:
      - Where the machines are made.
      - The clouds' credentials come from where their own tools look for them (environment, profile, role of the
        instance), and from nowhere else.
    type: str
    choices: [docker, alicloud, aws, libvirt]
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
          - Number of the first machine's address within the network, in a cloud within its subnet; the others follow.
          - Default is the next free one from 10 on. Give it to sets that will grow, so that no other set moves.
        type: int
      groups:
        description: Inventory groups of the machines.
        type: list
        elements: str
        default: []
      image:
        description:
          - Image that the machines start from.
          - In a cloud an id or a pattern for names, V(turnkey-node-debian12-*), of which new machines take the newest.
            It matches your own images; V(136693071363/debian-12-amd64-*) those of the account 136693071363.
          - With O(provider=libvirt) the path, on the control node, of the directory that the playbook C(image) wrote,
            or of a qcow2 file that boots by itself. New machines take what is there now.
        type: str
        required: true
      cpus:
        description: Processors that a machine may use, with O(provider=docker). Left out, there is no limit.
        type: float
      memory_mb:
        description: Memory that a machine may use, in MB, with O(provider=docker). Left out, there is no limit.
        type: int
      instance_type:
        description:
          - Kind of machine, as the cloud calls it. Required in a cloud.
          - With O(provider=libvirt) the name of one of O(libvirt.kinds). Required there.
        type: str
      root_gb:
        description: Size of the first disk in GB, in a cloud. Left out, it is that of the image.
        type: int
      spot:
        description: Whether to take machines that are cheaper and that the cloud may take back, in a cloud.
        type: bool
        default: false
      placement:
        description:
          - How the set's machines lie to each other in a cloud. V(cluster) is close together, for short ways between
            them, V(spread) on different hardware.
        type: str
        choices: [cluster, spread]
      bastion:
        description: Whether the set's machine is the one that is reached from outside. Exactly one machine must be.
        type: bool
        default: false
      volumes:
        description:
          - Volumes that the machines have.
          - With O(provider=docker), machines that list the same name share the volume. In a cloud each machine has its
            own, which outlives it; a new one is formatted with ext4 when it is first mounted.
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
          size_gb:
            description: Size in GB. Required in a cloud.
            type: int
          type:
            description: Kind of volume, as the cloud calls it. Left out, it is the provider's choice, on AWS V(gp3).
            type: str
  cloud:
    description: Where in a cloud the cluster is, and who may reach it. Required there.
    type: dict
    suboptions:
      region:
        description: Region, as the cloud calls it.
        type: str
        required: true
      zone:
        description: Zone for all machines. Left out, the first that has all kinds of machines.
        type: str
      ssh_from:
        description: Networks that may log in to the bastion. Required for O(state=present).
        type: list
        elements: str
        default: []
      egress:
        description:
          - How private machines reach the internet. V(nat) is a NAT gateway, which costs money by the hour; V(proxy) is
            the proxy in O(cloud.proxy_url); with V(none) they can't, and everything must be in their image.
        type: str
        choices: [nat, proxy, none]
        default: nat
      proxy_url:
        description: Proxy that new machines use, for O(cloud.egress=proxy).
        type: str
      login_user:
        description: User that the image lets in. Left out, that of the provider's Debian images.
        type: str
      user_data:
        description:
          - Your own part of the user data, C(#cloud-config) or a script. It is compressed where that is needed to fit.
          - Every process of a machine may read it, so it must hold no secret.
        type: str
      remove_foreign_rules:
        description: Whether to remove security rules that others have added to the cluster's groups.
        type: bool
        default: false
  libvirt:
    description: Where virtual machines are, and what they are, for O(provider=libvirt). Required there.
    type: dict
    suboptions:
      hypervisors:
        description:
          - Hypervisors, by libvirt's URIs, V(qemu:///system) or V(qemu+ssh://admin@host/system).
          - Remove a hypervisor's machines before you remove it from this list. What isn't listed isn't seen.
        type: list
        elements: str
        default: ["qemu:///system"]
      kinds:
        description:
          - Kinds of machines by their names, each with V(vcpus) and V(memory_mb).
          - Optional are V(disk_gb), by default as large as the image; V(cpu_model), one of libvirt's names or
            V(host-model), V(host-passthrough), V(maximum); V(hugepages), true or false; and V(devices), XML that goes
            into the machine's C(<devices>), for example a C(<hostdev>) for a GPU.
        type: dict
        default: {}
      network:
        description:
          - Name of the libvirt network that the machines are in, on all hypervisors.
          - Left out, a network of the cluster's own is made, which needs that there is one hypervisor.
        type: str
      network_mode:
        description: Whether machines in a network of the cluster's own reach other networks.
        type: str
        choices: [nat, isolated]
        default: nat
      nameservers:
        description: Name servers of the machines. Left out, the gateway, which is the network's first address.
        type: list
        elements: str
        default: []
      directory:
        description: Directory on the hypervisors below which the machines' disks are.
        type: path
        default: /var/lib/libvirt/images
      accelerator:
        description:
          - V(kvm) is the processor's own virtualisation, V(emulation) works everywhere and is many times slower.
          - With V(auto) the first machine on a hypervisor is preceded by a trial of KVM, of some seconds.
        type: str
        choices: [auto, kvm, emulation]
        default: auto
      spread:
        description:
          - How new machines are spread over hypervisors. V(memory) takes the one with most memory free, V(round_robin)
            the one with fewest of the cluster's machines.
        type: str
        choices: [memory, round_robin]
        default: memory
      user_data:
        description:
          - Your own part of the first boot, a script or C(#cloud-config) (the latter for images with cloud-init).
          - It must hold no secret.
        type: str
  bastion_bind:
    description: Address of the engine's host where the bastion's SSH port is published, with O(provider=docker).
    type: str
    default: 127.0.0.1
  bastion_port:
    description: Port where the bastion's SSH port is published, with O(provider=docker).
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
    description: Least free space on the engine's disk to create machines, with O(provider=docker).
    type: float
    default: 2
  ready_timeout_seconds:
    description: How long to wait for the machines to accept logins. Default is 120, in a cloud and with libvirt 600.
    type: int
  progress_file:
    description: File to which a line is added for each step that is done. The action plugin shows them as they come.
    type: path
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

- name: A head with a disk of its own and eight nodes at AWS
  turnkey.hpc.cluster_machines:
    provider: aws
    cluster_name: lab
    network: 10.20.0.0/24
    access_dir: "{{ inventory_dir }}/.secrets/access"
    cloud:
      region: eu-central-1
      ssh_from: [203.0.113.7/32]
    machine_sets:
      - name: head
        image: turnkey-node-debian12-*
        instance_type: t3.medium
        groups: [controller, nfs_server]
        bastion: true
        volumes:
          - {name: shared, path: /shared, size_gb: 100}
      - name: node
        count: 8
        image: turnkey-node-debian12-*
        instance_type: c7i.xlarge
        groups: [compute]
        placement: cluster

- name: A head and four nodes on two hypervisors, joined by a bridge
  turnkey.hpc.cluster_machines:
    provider: libvirt
    cluster_name: lab
    network: 10.30.0.0/24
    access_dir: "{{ inventory_dir }}/.secrets/access"
    libvirt:
      hypervisors: [qemu+ssh://admin@hv1/system, qemu+ssh://admin@hv2/system]
      network: hpc
      kinds:
        small: {vcpus: 2, memory_mb: 2048}
        large: {vcpus: 32, memory_mb: 131072, disk_gb: 40, hugepages: true}
    machine_sets:
      - name: head
        image: ~/.cache/turnkey/images/turnkey-node-debian12
        instance_type: small
        groups: [controller, nfs_server]
        bastion: true
      - name: node
        count: 4
        image: ~/.cache/turnkey/images/turnkey-node-debian12
        instance_type: large
        groups: [compute]

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.access import Access
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    ClusterSpec,
    Conflict,
    Machine,
    Provider,
    check_cluster_name,
    expand_spec,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import (
    Action,
    ApplyError,
    ReplacementRefused,
    diff,
    plan,
    plan_absent,
    surplus,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import PROVIDERS, connect

REMOVAL_ROUNDS = 5
FOREIGN = (
    "A security rule that the cluster didn't ask for stays: {}. cluster_cloud.remove_foreign_rules removes such rules."
)
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
    extras = surplus(provider.desired(spec), state)
    timeout_seconds = params.get("ready_timeout_seconds") or provider.ready_seconds
    provider.say = _writer(params)
    if check:
        machines = _machines_expected(provider, spec, actions, timeout_seconds)
    else:
        if access and own_key and not key:
            spec = dataclasses.replace(spec, admin_public_key=access.make_key())
            actions = plan(provider.desired(spec), state, allow_replace=params["allow_replace"])
        provider.apply(actions, _progress(params, actions))
        machines = _machines_found(provider, spec, timeout_seconds)
    changes = access.changes(machines, own_key=own_key) if access else []
    if access and not check:
        access.apply(changes)
    return {
        "changed": bool(actions or changes),
        "actions": [str(action) for action in actions],
        "diff": [shown, *(change.diff() for change in changes)],
        "machines": [_returned(machine) for machine in machines],
        "summary": _summary(machines, access),
        "warnings": [
            *provider.warnings,
            *(FOREIGN.format(extra) for extra in extras if extra.startswith("security_group")),
        ],
    }


def absent(params: Mapping[str, Any], provider: Provider | None, access: Access | None, check: bool) -> dict[str, Any]:
    """Remove everything of the cluster."""
    cluster = params["cluster_name"]
    problems = check_cluster_name(cluster)
    if problems:
        raise InvalidInput(join_problems(problems))
    provider = provider or connect(params["provider"], run_local, params)
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
        _remove(provider, cluster, actions, _progress(params, actions))
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
        provider = provider or connect(params["provider"], run_local, params)
    except HpcError as error:
        problems.append(str(error))
    if problems or provider is None or spec is None:
        raise InvalidInput(join_problems(problems))
    return provider, spec


def _progress(params: Mapping[str, Any], actions: Sequence[Action]) -> Callable[[Action], None]:
    """Return what writes a line for each action that is done."""
    write, done = _writer(params), 0

    def count(action: Action) -> None:
        nonlocal done
        done += 1
        write(f"{done}/{len(actions)} {action}")

    return count


def _writer(params: Mapping[str, Any]) -> Callable[[str], None]:
    """Return what adds a line to the progress file, if there is one."""
    path = params.get("progress_file")

    def write(line: str) -> None:
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    return write


def _remove(
    provider: Provider, cluster: str, actions: Sequence[Action], progress: Callable[[Action], None] | None
) -> None:
    """Remove, and look again: a cloud may show late what was made last."""
    for _round in range(REMOVAL_ROUNDS):
        provider.apply(actions, progress)
        actions = plan_absent(provider.discover(cluster))
        if not actions:
            return
    left = ", ".join(f"{action.kind} {action.key}" for action in actions)
    raise Conflict(f"After {REMOVAL_ROUNDS} rounds of removal there still is: {left}.", "Run it again.")


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
        else dataclasses.replace(provider.expected(spec, item), host_key=HOST_KEY_TO_LEARN)
        for item in spec.machines
    ]


def _returned(machine: Machine) -> dict[str, Any]:
    names = ("name", "address", "bastion", "public_address", "public_port", "host_key", "login_user")
    return {**{name: getattr(machine, name) for name in names}, "groups": list(machine.groups)}


def _summary(machines: list[Machine], access: Access | None) -> list[str]:
    width = max(len(machine.name) for machine in machines)
    lines = [f"{m.name:<{width}}  {m.address:<15}  {', '.join(m.groups)}".rstrip() for m in machines]
    bastion = next(machine for machine in machines if machine.bastion)
    lines.append(
        f"{bastion.name} is reached at {bastion.public_address} port {bastion.public_port} as {bastion.login_user}; "
        f"its address in the cluster is {bastion.address}."
    )
    if access:
        return [*lines, f"Log in: ssh -F {access.directory}/ssh_config {bastion.name}"]
    return [*lines, f"Log in: ssh -p {bastion.public_port} {bastion.login_user}@{bastion.public_address}"]


def main() -> None:
    """Run as a module."""
    volume = {
        "name": {"type": "str", "required": True},
        "path": {"type": "path", "required": True},
        "size_gb": {"type": "int"},
        "type": {"type": "str"},
    }
    cloud = {
        "region": {"type": "str", "required": True},
        "zone": {"type": "str"},
        "ssh_from": {"type": "list", "elements": "str", "default": []},
        "egress": {"type": "str", "choices": ["nat", "proxy", "none"], "default": "nat"},
        "proxy_url": {"type": "str"},
        "login_user": {"type": "str"},
        "user_data": {"type": "str"},
        "remove_foreign_rules": {"type": "bool", "default": False},
    }
    libvirt = {
        "hypervisors": {"type": "list", "elements": "str", "default": ["qemu:///system"]},
        "kinds": {"type": "dict", "default": {}},
        "network": {"type": "str"},
        "network_mode": {"type": "str", "choices": ["nat", "isolated"], "default": "nat"},
        "nameservers": {"type": "list", "elements": "str", "default": []},
        "directory": {"type": "path", "default": "/var/lib/libvirt/images"},
        "accelerator": {"type": "str", "choices": ["auto", "kvm", "emulation"], "default": "auto"},
        "spread": {"type": "str", "choices": ["memory", "round_robin"], "default": "memory"},
        "user_data": {"type": "str"},
    }
    machine_set = {
        "name": {"type": "str", "required": True},
        "count": {"type": "int"},
        "first_host": {"type": "int"},
        "groups": {"type": "list", "elements": "str", "default": []},
        "image": {"type": "str", "required": True},
        "cpus": {"type": "float"},
        "memory_mb": {"type": "int"},
        "instance_type": {"type": "str"},
        "root_gb": {"type": "int"},
        "spot": {"type": "bool", "default": False},
        "placement": {"type": "str", "choices": ["cluster", "spread"]},
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
            "cloud": {"type": "dict", "options": cloud},
            "libvirt": {"type": "dict", "options": libvirt},
            "bastion_bind": {"type": "str", "default": "127.0.0.1"},
            "bastion_port": {"type": "int", "default": 2222},
            "admin_public_key": {"type": "str", "no_log": False},
            "access_dir": {"type": "path"},
            "allow_replace": {"type": "bool", "default": False},
            "confirm": {"type": "str", "default": ""},
            "min_free_disk_gb": {"type": "float", "default": 2},
            "ready_timeout_seconds": {"type": "int"},
            "progress_file": {"type": "path"},
        },
        required_if=[
            ("state", "present", ("network", "machine_sets")),
            ("state", "present", ("access_dir", "admin_public_key"), True),
            ("provider", "aws", ("cloud",)),
            ("provider", "libvirt", ("libvirt",)),
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
    for warning in result.pop("warnings", []):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
