#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SSH certificate authority of a cluster, on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_authority
short_description: Keep the SSH certificate authority of a cluster
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Keeps one pair of SSH authorities (one for hosts, one for users), the revocation list and a C(known_hosts) file for
    people outside the cluster in a directory of the control node. Run it there (C(delegate_to=localhost),
    C(run_once), not as root).
  - A key is made once. A key that is broken, readable by others or does not fit its public half is an error and never
    replaced.
requirements:
  - cryptography (Python library) where the module runs
  - ssh-keygen where the module runs
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status without modifying anything.
  diff_mode:
    support: full
    description: Shows the public files that change. Private keys are only named.
  idempotent:
    support: full
    description: A second run changes nothing.
options:
  directory:
    description: The directory of the authority, 0700. Its parents are made where they are missing.
    type: path
    required: true
  host_ca_key:
    description:
      - Private key of the host CA (OpenSSH format, no passphrase), for example from Ansible Vault. It is not written
        to a file.
      - Without it the key is the file C(host_ca) of the directory, made when missing.
    type: str
    default: ""
  user_ca_key:
    description: Private key of the user CA, like O(host_ca_key).
    type: str
    default: ""
  revoked:
    description:
      - The revocation list, in the format of ssh-keygen's KRL specifications, such as C(serial:) with a number or a
        range, C(id:) with a key id, C(key:) or C(sha256:) with a public key, C(sha256:) with a fingerprint.
      - The list is made into C(revoked.krl); it is written anew only when this option or an authority changes.
    type: list
    elements: str
    default: []
  retire:
    description:
      - Names of nodes that leave the cluster. All certificates that were issued to them and their users are revoked, by
        serial number, so that a new machine may have the name.
      - The revocations are kept in C(retired.spec) of the directory until the certificates have expired.
    type: list
    elements: str
    default: []
  host_patterns:
    description: The patterns of the cluster's names and addresses, from the filter
      P(turnkey.hpc.ssh_host_patterns#filter).
    type: list
    elements: str
    default: []
  state:
    description: V(absent) removes the authority. Files in the directory that are not of the authority stay.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: turnkey.hpc.ssh_identity
  - module: turnkey.hpc.ssh_credential
"""

EXAMPLES = r"""
- name: Keep the authority of the cluster
  turnkey.hpc.ssh_authority:
    directory: "{{ cluster_secrets_dir }}/ssh_ca"
    host_patterns: "{{ cluster_members | turnkey.hpc.ssh_host_patterns(cluster_domain, cluster_network) }}"
    revoked:
      - "id: alice@node2"
      - "serial: 4711"
  delegate_to: localhost
  run_once: true
  become: false
"""

RETURN = r"""
host_ca:
  description: Public key of the host CA. Empty while there is none, in check mode.
  returned: when O(state=present)
  type: str
user_ca:
  description: Public key of the user CA. Empty while there is none, in check mode.
  returned: when O(state=present)
  type: str
revoked:
  description: The whole revocation list, that of O(revoked) and that of nodes that were removed.
  returned: when O(state=present)
  type: list
  elements: str
host_patterns:
  description: The patterns that were given, so that they are worked out once for all hosts.
  returned: when O(state=present)
  type: list
  elements: str
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_ca import (
    RETIRED_NAME,
    apply_authority,
    apply_wipe,
    plan_authority,
    plan_wipe,
    require_cryptography,
    retire,
    retired_lines,
    write_file,
)


def run(module: AnsibleModule) -> dict[str, object]:
    """Compare, act unless in check mode, and return the result."""
    params = module.params
    directory = Path(params["directory"])
    if params["state"] == "absent":
        plan = plan_wipe(directory)
        if plan and not module.check_mode:
            apply_wipe(plan)
        return {"changed": bool(plan), "diff": plan.diff()}

    def run_command(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        code, out, err = module.run_command(argv, data=stdin, environ_update={"LC_ALL": "C"})
        return code, out, err

    require_cryptography()
    given = {"host": params["host_ca_key"], "user": params["user_ca_key"]}
    patterns = params["host_patterns"]
    before, retired = retired_lines(directory), retire(directory, params["retire"], int(time.time()))
    revoked = [*params["revoked"], *retired]
    plan, authority = plan_authority(directory, given, revoked, patterns)
    if not module.check_mode:
        if retired != before:  # before the list that is made of it: a run that is cut off here is completed by the next
            write_file(directory / RETIRED_NAME, "".join(f"{line}\n" for line in retired).encode(), 0o600)
        if plan:
            authority = apply_authority(plan, given, revoked, patterns, run_command)
    return {
        "changed": bool(plan) or retired != before,
        "diff": plan.diff(),
        "host_ca": authority.host.public if authority else "",
        "user_ca": authority.user.public if authority else "",
        "revoked": revoked,
        "host_patterns": patterns,
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "host_ca_key": {"type": "str", "default": "", "no_log": True},
            "user_ca_key": {"type": "str", "default": "", "no_log": True},
            "revoked": {"type": "list", "elements": "str", "default": []},
            "retire": {"type": "list", "elements": "str", "default": []},
            "host_patterns": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    with errors_end(module):
        result = run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
