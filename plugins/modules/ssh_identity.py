#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's half of the SSH mesh; the action plugin of the same name signs on the control node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_identity
short_description: Make a node part of the cluster's SSH mesh
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - The node makes its own keys, one of its own and one for each user, and keeps them. The control node signs their
    public halves with the cluster's authority; no private key travels.
  - Writes the certificates, the revocation list, C(known_hosts) and one piece each of the configuration of ssh and
    sshd. What it writes is as long for a thousand nodes as for two.
  - The configuration is tested with C(sshd -t); if that fails, the old files are put back. sshd is reloaded, and
    started if it does not run; connections that exist go on.
  - An action plugin; it runs the module on the node once to look and to make keys, and once more only if something
    has to be written.
attributes:
  check_mode:
    support: full
    description: Can run in C(check_mode) and return changed status without modifying anything, also where OpenSSH is
      missing.
  diff_mode:
    support: full
    description: Shows the files and certificates that change.
  idempotent:
    support: full
    description: A second run changes nothing until a certificate is due.
options:
  name:
    description: The name of the node. Required if O(state=present).
    type: str
  host_principals:
    description: The names and addresses by which the node may be reached. Required if O(state=present).
    type: list
    elements: str
  host_patterns:
    description: The patterns of the cluster's names and addresses, see P(turnkey.hpc.ssh_host_patterns#filter).
      Required if O(state=present).
    type: list
    elements: str
  users:
    description: The users of the mesh; they need accounts on the node. Keys of others, from an earlier run, are
      removed.
    type: list
    elements: str
    default: []
  authority_dir:
    description: The directory of the authority on the control node, see M(turnkey.hpc.ssh_authority). Required if
      O(state=present).
    type: path
  host_ca_key:
    description: Private key of the host CA where it is not in O(authority_dir). It stays on the control node.
    type: str
    default: ""
  user_ca_key:
    description: Private key of the user CA where it is not in O(authority_dir). It stays on the control node.
    type: str
    default: ""
  revoked:
    description: The revocation list, the same as for M(turnkey.hpc.ssh_authority).
    type: list
    elements: str
    default: []
  source_networks:
    description: The networks from which the users' certificates may be used; loopback is added.
    type: list
    elements: str
    default: []
  user_extensions:
    description: The extensions of the users' certificates.
    type: list
    elements: str
    choices: [permit-X11-forwarding, permit-agent-forwarding, permit-port-forwarding, permit-pty, permit-user-rc]
    default: [permit-X11-forwarding, permit-agent-forwarding, permit-port-forwarding, permit-pty]
  host_validity_days:
    description: For how many days a host certificate is valid.
    type: int
    default: 365
  user_validity_days:
    description: For how many days a user certificate is valid.
    type: int
    default: 90
  renew_before_days:
    description: A certificate with fewer days left is renewed.
    type: int
    default: 30
  max_startups:
    description: Value of sshd's C(MaxStartups); empty leaves it alone.
    type: str
    default: "100:30:500"
  service:
    description: The systemd service of sshd, without suffix.
    type: str
    default: ssh
  state:
    description: V(absent) removes all that this module wrote, and leaves the host key.
    type: str
    choices: [present, absent]
    default: present
  phase:
    description: Set by the action plugin.
    type: str
    choices: [look, write]
    default: look
  revoked_keys:
    description: Set by the action plugin, the fingerprints of revoked keys.
    type: list
    elements: str
    default: []
  files:
    description: Set by the action plugin, the files to write.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it goes.
        type: path
        required: true
      content:
        description: Its content in base64.
        type: str
        required: true
  reload:
    description: Set by the action plugin, whether sshd has to be told.
    type: bool
    default: false
seealso:
  - module: turnkey.hpc.ssh_authority
"""

EXAMPLES = r"""
- name: Make this node part of the mesh
  turnkey.hpc.ssh_identity:
    name: node1
    host_principals: [node1, node1.demo.internal, 10.213.77.11]
    host_patterns: ["10.213.77.*", head, head.demo.internal, "node?", "node?.demo.internal"]
    users: [alice, bob]
    authority_dir: "{{ cluster_secrets_dir }}/ssh_ca"
    source_networks: [10.213.77.0/24]
"""

RETURN = r"""
certificates:
  description: The certificates that were (or in check mode would be) signed.
  returned: when O(state=present)
  type: list
  elements: dict
  contains:
    key_id:
      description: The key id.
      type: str
    reasons:
      description: Why a new one was needed.
      type: list
      elements: str
    serial:
      description: The serial number; 0 in check mode.
      type: int
barred:
  description: The key ids that the revocation list names; nothing is signed for them.
  returned: when O(state=present)
  type: list
  elements: str
module_runs:
  description: How often the module ran on the node.
  returned: when O(state=present)
  type: int
report:
  description: What the module found on the node; for the action plugin, which keeps it to itself.
  returned: never
  type: dict
"""

import base64
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, errors_end, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_identity import (
    Node,
    Paths,
    apply_files,
    ensure_keys,
    name_problems,
    plan_removal,
    remove_identity,
    report,
)


def account(user: str) -> tuple[int, int] | None:
    """Return uid and gid of a user, or None."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return None
    return entry.pw_uid, entry.pw_gid


def run(module: AnsibleModule) -> dict[str, object]:
    """Do one phase and return the result."""
    params = module.params

    def run_command(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
        code, out, err = module.run_command(argv, data=stdin, environ_update={"LC_ALL": "C"})
        return code, out, err

    node = Node(run=run_command, paths=Paths(), account=account)
    if params["state"] == "absent":
        remove = plan_removal(node.paths)
        if remove and not module.check_mode:
            remove_identity(node, remove, params["service"])
        diff = [{"prepared": "".join(f"remove {path}\n" for path in remove)}] if remove else []
        return {"changed": bool(remove), "diff": diff}
    if params["phase"] == "write":
        if not module.check_mode:
            files = {entry["path"]: base64.b64decode(entry["content"]) for entry in params["files"]}
            apply_files(node, files, params["service"], params["reload"])
        return {"changed": True}
    problems = name_problems(params["users"], params["name"] or "")
    if problems:
        raise InvalidInput(join_problems(problems))
    done = ensure_keys(node, params["users"], params["name"], params["revoked_keys"], module.check_mode)
    found = report(node, params["users"], params["service"], module._diff)
    diff = [{"prepared": "".join(f"{line}\n" for line in done)}] if done else []
    return {"changed": bool(done), "report": found, "diff": diff}


def main() -> None:
    """Run the module."""
    extensions = ["permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty"]
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "host_principals": {"type": "list", "elements": "str"},
            "host_patterns": {"type": "list", "elements": "str"},
            "users": {"type": "list", "elements": "str", "default": []},
            "authority_dir": {"type": "path"},
            "host_ca_key": {"type": "str", "default": "", "no_log": True},
            "user_ca_key": {"type": "str", "default": "", "no_log": True},
            "revoked": {"type": "list", "elements": "str", "default": []},
            "source_networks": {"type": "list", "elements": "str", "default": []},
            "user_extensions": {
                "type": "list",
                "elements": "str",
                "choices": [*extensions, "permit-user-rc"],
                "default": extensions,
            },
            "host_validity_days": {"type": "int", "default": 365},
            "user_validity_days": {"type": "int", "default": 90},
            "renew_before_days": {"type": "int", "default": 30},
            "max_startups": {"type": "str", "default": "100:30:500"},
            "service": {"type": "str", "default": "ssh"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "phase": {"type": "str", "choices": ["look", "write"], "default": "look"},
            "revoked_keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                },
            },
            "reload": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # A module gets the PATH of a session, which may lack sshd's and systemctl's places.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    with errors_end(module):
        result = run(module)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
