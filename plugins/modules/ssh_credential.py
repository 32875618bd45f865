#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A short-lived key and certificate of a user, made on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_credential
short_description: Make a short-lived SSH key and certificate for users of a cluster
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Makes a key and a certificate of the cluster's user CA that lets its holder log in as the given users from
    anywhere, for a short time. For tests from outside (C(ansible_ssh_private_key_file)), and for operators to hand to
    a user.
  - The files are O(path), O(path) with C(.pub) and O(path) with C(-cert.pub). They stay for half of the certificate's
    life and are then replaced by new ones.
  - Run it on the control node (C(delegate_to=localhost), not as root).
requirements:
  - cryptography (Python library) where the module runs
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status without modifying anything.
  diff_mode:
    support: full
    description: Shows why a new certificate is made. Keys are only named.
  idempotent:
    support: full
    description: A second run changes nothing for half the life of the certificate.
options:
  path:
    description: Where the private key goes. Its directory is made, 0700, where it is missing.
    type: path
    required: true
  authority_dir:
    description: The directory of the authority, see M(turnkey.hpc.ssh_authority). Required if O(state=present).
    type: path
  user_ca_key:
    description: Private key of the user CA where it is not in O(authority_dir), for example from Ansible Vault.
    type: str
    default: ""
  host_ca_key:
    description: Private key of the host CA where it is not in O(authority_dir). It signs nothing here, but both are
      checked.
    type: str
    default: ""
  principals:
    description: The users to log in as; never root. Required if O(state=present).
    type: list
    elements: str
  valid_minutes:
    description: For how many minutes the certificate is valid.
    type: int
    default: 60
  key_id:
    description: The key id of the certificate, as sshd logs it and as C(id:) entries revoke it. By default
      C(credential:) and the principals.
    type: str
  state:
    description: V(absent) removes the files.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: turnkey.hpc.ssh_authority
"""

EXAMPLES = r"""
- name: Let the tests log in as alice for an hour
  turnkey.hpc.ssh_credential:
    path: "{{ cluster_secrets_dir }}/verify/alice"
    authority_dir: "{{ cluster_secrets_dir }}/ssh_ca"
    principals: [alice]
    valid_minutes: 60
  delegate_to: localhost
  run_once: true
  become: false
"""

RETURN = r"""
path:
  description: The private key.
  returned: always
  type: str
certificate:
  description: The certificate; empty if it is not made yet, in check mode.
  returned: when O(state=present)
  type: str
serial:
  description: Its serial number; 0 if it is not made yet, in check mode.
  returned: when O(state=present)
  type: int
"""

import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_ca import (
    apply_credential,
    load_authority,
    plan_credential,
    plan_credential_removal,
    require_cryptography,
)


def run(module: AnsibleModule) -> dict[str, object]:
    """Compare, act unless in check mode, and return the result."""
    params = module.params
    path = Path(params["path"])
    if params["state"] == "absent":
        plan = plan_credential_removal(path)
        if not module.check_mode:
            for item in plan.remove:
                item.unlink()
        removed = "".join(f"remove {item}\n" for item in plan.remove)
        return {"changed": bool(plan), "path": str(path), "diff": [{"prepared": removed}] if plan else []}

    require_cryptography()
    principals, minutes = params["principals"], params["valid_minutes"]
    key_id = params["key_id"] or f"credential:{','.join(principals)}"
    directory = Path(params["authority_dir"])
    authority = load_authority(directory, {"host": params["host_ca_key"], "user": params["user_ca_key"]})
    if authority is None:
        if module.check_mode:
            prepared = f"new credential {path} (there is no authority yet)\n"
            diff = [{"prepared": prepared}]
            return {"changed": True, "path": str(path), "certificate": "", "serial": 0, "diff": diff}
        raise HpcError(f"There is no SSH authority in {directory}.", "deploy the cluster first (role ssh_mesh).")
    now = int(time.time())
    plan = plan_credential(path, principals, key_id, minutes, authority, now)
    certificate = plan.current
    if plan and not module.check_mode:
        certificate = apply_credential(plan, principals, key_id, minutes, authority, now)
    return {
        "changed": bool(plan),
        "path": str(path),
        "certificate": certificate.text if certificate else "",
        "serial": certificate.serial if certificate else 0,
        "diff": [{"prepared": f"new credential {path}: {', '.join(plan.reasons)}\n"}] if plan else [],
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "authority_dir": {"type": "path"},
            "user_ca_key": {"type": "str", "default": "", "no_log": True},
            "host_ca_key": {"type": "str", "default": "", "no_log": True},
            "principals": {"type": "list", "elements": "str"},
            "valid_minutes": {"type": "int", "default": 60},
            "key_id": {"type": "str", "no_log": False},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("authority_dir", "principals"))],
        supports_check_mode=True,
    )
    with errors_end(module):
        result = run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
