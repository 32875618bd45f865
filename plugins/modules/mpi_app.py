#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mpi_app
short_description: Build an MPI application on a cluster and run it
version_added: "0.1.0"
description:
  - Does what a C(git push) to the MPI service does, with a source tree on the control node.
  - The tree becomes a commit of branch C(playbook) in the user's repository. It is built and run there as the user.
  - Needs the role P(turnkey.hpc.mpi_service#role) on the host, which is the cluster's head node.
author: The turnkey.hpc founders (@turnkey-hpc)
attributes:
  check_mode:
    support: full
    description: Checks the manifest and says what would be built and run, without a look at the cluster.
  diff_mode:
    support: none
    description: Returns what was built and run instead.
  idempotent:
    support: none
    description: Every time is a run. The same tree is the same commit.
options:
  src:
    description:
      - Directory on the control node, with C(mpi.yml) or C(mpi.xml) at its top. All its files go over, but for C(.git).
      - At most 32 MB.
    type: path
    required: true
  name:
    description: Name of the application. By default that of the directory.
    type: str
  user:
    description: Account as which it is built and run. By default the one that the module runs as. It may not be root.
    type: str
  options:
    description:
      - Other values for this run than those of the manifest.
      - The keys are C(hosts), C(ranks_per_host), C(cpus_per_rank), C(args), C(time_limit) and C(partition).
    type: dict
    default: {}
  wait:
    description: Whether to wait for the end of the run. A run that fails is a failure of the task.
    type: bool
    default: true
  _archive:
    description: Set by the action plugin. Not for use in tasks.
    type: str
seealso:
  - module: turnkey.hpc.cluster_checks
"""

EXAMPLES = r"""
- name: Run the solver on eight hosts
  turnkey.hpc.mpi_app:
    src: solver
    user: alice
    options: {hosts: 8, time_limit: 2h}
  register: solver

- name: Show what rank 0 and the others said
  ansible.builtin.debug:
    var: solver.output
"""

RETURN = r"""
app:
  description: Name of the application.
  returned: always
  type: str
number:
  description: Number of the run, as in C(apps log APP NUMBER).
  returned: when it was run
  type: int
state:
  description:
    - How it ended, one of C(completed), C(failed), C(timeout), C(cancelled), C(lost).
    - Without O(wait) also C(queued) or C(running).
  returned: when it was run
  type: str
exit_code:
  description: Exit code of the run.
  returned: when it has ended
  type: int
hosts:
  description: Names of the hosts it ran on; in check mode their number.
  returned: when it has started
  type: raw
ranks:
  description: Ranks by host; in check mode their number.
  returned: when it has started
  type: raw
  sample: {node1: [0, 1], node2: [2, 3]}
seconds:
  description: How long it ran.
  returned: when it has started
  type: float
output:
  description: What it said.
  returned: with O(wait)
  type: str
build_log:
  description: What its build said.
  returned: with O(wait)
  type: str
commit:
  description: The commit that was run.
  returned: when it was run
  type: str
versions:
  description: Versions of compilers and MPI.
  returned: when it was run
  type: dict
build:
  description: Commands that would build it.
  returned: in check mode
  type: list
  elements: str
program:
  description: The program that would be run, with its arguments.
  returned: in check mode
  type: str
"""

import base64
import json
import os
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, errors_end

PROGRAM = "/usr/local/bin/apps"


def command(current: str, user: str, name: str, options: dict[str, Any], wait: bool) -> list[str]:
    """Return the command that runs a tree, which is its stdin, as ``user``."""
    if user == "root":
        raise InvalidInput("user is 'root', as which no application is run.", "name one of the cluster's users.")
    if user != current and current != "root":
        raise InvalidInput(f"user is '{user}', and the module runs as '{current}'.", "use become: true.")
    argv = ["runuser", "-u", user, "--"] if user != current else []
    argv += [PROGRAM, "run", "--json", "--tar=-"] + ["--detach"] * (not wait)
    argv += [f"--option={key}={value}" for key, value in options.items()]
    return [*argv, "--", name]


def outcome(name: str, rc: int, out: str, err: str) -> dict[str, Any]:
    """Return what there is to say about a run; it is a failure where the application failed."""
    try:
        found = json.loads(out)
    except ValueError:
        text = err.strip()
        if rc == 127 and PROGRAM in text:
            text = f"The host has no MPI service. Remedy: run site.yml with cluster_mpi_service: true. ({text})"
        raise HpcError(text.replace("apps: ", "", 1) or f"apps ended with {rc} and said nothing.") from None
    result: dict[str, Any] = {"changed": True, **found}
    if rc:
        lines = str(found.get("output") or "").strip().splitlines()[-5:]
        result.update(
            failed=True, msg="\n".join([f"{name} run {found['number']}: {found['state']}, exit code {rc}", *lines])
        )
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path", "required": True},
            "name": {"type": "str"},
            "user": {"type": "str"},
            "options": {"type": "dict", "default": {}},
            "wait": {"type": "bool", "default": True},
            # As one hidden value it reaches neither the host's log nor the result.
            "_archive": {"type": "str", "no_log": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        # The action plugin answers; nothing is built from here.
        module.exit_json(changed=True)
    parameters = module.params
    current = pwd.getpwuid(os.geteuid()).pw_name
    with errors_end(module):
        user = parameters["user"] or current
        argv = command(current, user, parameters["name"], parameters["options"], parameters["wait"])
        try:
            pwd.getpwnam(user)
        except KeyError as error:
            raise InvalidInput(
                f"user is '{user}', which is no account of this host.", "name one of the cluster's users."
            ) from error
        archive = base64.b64decode(parameters["_archive"] or "")
        rc, out, err = module.run_command(argv, data=archive, binary_data=True, cwd="/")
        result = outcome(parameters["name"], rc, out, err)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
