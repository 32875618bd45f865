#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_checks
short_description: Prove as an ordinary user that the cluster does its job
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Runs checks on the host and as the user that Ansible logs in with.
  - Let that be the head node and an ordinary user, without privilege escalation.
  - A check that fails doesn't fail the module. See RV(checks).
  - What the checks write goes to a directory of its own below O(shared_dir) and is removed afterwards.
options:
  checks:
    description:
      - The checks to run, in this order.
      - V(ssh_mesh) logs in from the head to every node, and from each node on to the next one.
        There is no prompt, and host keys are checked.
      - V(shared_directory) writes on the head and reads on every node, and the other way round.
      - V(mpi_hello) compiles an MPI program and runs a rank on every one of O(mpi_hosts).
      - V(mpi_network) measures latency and bandwidth between O(mpi_hosts), as MPI sees them.
      - V(mpi_service) pushes an MPI program to the head's MPI service with git over SSH, and sees it run.
      - V(slurm_batch) submits a batch job to Slurm that runs on every one of O(mpi_hosts), and reads its output.
      - V(slurm_mpi) does as V(mpi_hello), started by C(srun), and by C(mpirun) within C(salloc).
      - V(slurm_accounting) runs a small job and finds it with C(sacct).
      - V(jupyterhub) logs in to the notebooks at C(jupyterhub_url) of O(settings), starts a server, runs a cell
        and stops it.
    type: list
    elements: str
    choices: &checks
      - ssh_mesh
      - shared_directory
      - mpi_hello
      - mpi_network
      - mpi_service
      - slurm_batch
      - slurm_mpi
      - slurm_accounting
      - jupyterhub
    default: *checks
  hosts:
    description: Names of all nodes.
    type: list
    elements: str
    required: true
  mpi_hosts:
    description: Names of the nodes that run jobs.
    type: list
    elements: str
    default: []
  shared_dir:
    description: Directory that all nodes share.
    type: path
    required: true
  hostfile:
    description: The host file for C(mpirun), which lists O(mpi_hosts).
    type: path
    default: /etc/openmpi/cluster-hosts
  timeout_seconds:
    description: How long a check may take.
    type: int
    default: 120
  settings:
    description:
      - What some checks need besides the other options.
      - For V(mpi_network) it is C(scheduler), which is C(slurm) where Slurm runs the jobs.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Is skipped in check mode, because a proof has to write.
    support: none
  diff_mode:
    description: Leaves nothing changed, so there is nothing to show.
    support: none
  idempotent:
    description: Changes nothing that lasts, however often it runs.
    support: full
"""

EXAMPLES = r"""
- name: See whether the nodes reach each other and share a directory
  turnkey.hpc.cluster_checks:
    checks: [ssh_mesh, shared_directory]
    hosts: [head, node1, node2]
    shared_dir: /shared
  register: proof
"""

RETURN = r"""
user:
  description: Who ran the checks.
  returned: success
  type: str
host:
  description: Where the checks ran.
  returned: success
  type: str
checks:
  description: One entry a check.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the check.
      type: str
    ok:
      description: Whether all is well.
      type: bool
    seconds:
      description: How long it took.
      type: float
    detail:
      description:
        - What was seen. C(failures) lists what is wrong.
        - V(mpi_hello) and V(slurm_mpi) list C(ranks), each with its rank and host.
        - V(jupyterhub) has C(url), C(start_seconds) and C(output), what the cell printed.
        - V(slurm_batch) and V(slurm_accounting) have C(job), the number of the job, and its C(state).
      type: dict
"""

import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._cluster_checks import (
    CHECKS,
    Context,
    run_checks,
    run_command,
)


def main() -> None:
    """Run as an Ansible module."""
    names = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "checks": {**names, "choices": list(CHECKS), "default": list(CHECKS)},
            "hosts": {**names, "required": True},
            "mpi_hosts": {**names, "default": []},
            "shared_dir": {"type": "path", "required": True},
            "hostfile": {"type": "path", "default": "/etc/openmpi/cluster-hosts"},
            "timeout_seconds": {"type": "int", "default": 120},
            "settings": {"type": "dict", "default": {}},
        },
        supports_check_mode=False,
    )
    parameters = module.params
    context = Context(
        run=run_command,
        hosts=parameters["hosts"],
        mpi_hosts=parameters["mpi_hosts"],
        shared_dir=parameters["shared_dir"],
        hostfile=parameters["hostfile"],
        timeout_seconds=parameters["timeout_seconds"],
        options=parameters["settings"],
    )
    module.exit_json(
        changed=False,
        user=pwd.getpwuid(os.getuid()).pw_name,
        host=os.uname().nodename,
        checks=run_checks(parameters["checks"], context),
    )


if __name__ == "__main__":
    main()
