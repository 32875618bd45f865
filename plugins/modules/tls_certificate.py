#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: tls_certificate
short_description: A TLS certificate for a service, signed by the cluster's authority
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - The host makes its own key and keeps it. The control node signs its public half with the cluster's authority, which
    it makes when there is none. No private key travels.
  - Writes C(server.key), C(server.crt) and C(ca.crt), the authority's certificate.
  - An action plugin; it runs the module on the host once, and once more only if there is something to write.
requirements:
  - cryptography (Python library) on the control node
  - openssl on the host
attributes:
  check_mode:
    support: full
    description: Says what would be signed.
  diff_mode:
    support: full
    description: Says why a certificate is signed.
  idempotent:
    support: full
    description: A certificate is renewed only when its names, its key or the authority change, or when it ends soon.
options:
  directory:
    description: Directory on the host for the three files. It exists.
    type: path
    required: true
  group:
    description: Group that may read the key.
    type: str
    default: root
  names:
    description: Host names and addresses that the certificate is for. Needed.
    type: list
    elements: str
    default: []
  authority_dir:
    description: Directory of the authority on the control node. It is 0700, and so is what is in it. Needed.
    type: path
  authority_name:
    description: What a new authority is called, usually the name of the cluster.
    type: str
    default: turnkey
  days:
    description: How long a certificate is valid. Browsers take no longer one than 825 days.
    type: int
    default: 397
  renew_days:
    description: How many days before its end a certificate is renewed.
    type: int
    default: 60
  _files:
    description: Set by the action plugin, the certificates. Not for use in tasks.
    type: dict
"""

EXAMPLES = r"""
- name: Certify the notebook service
  turnkey.hpc.tls_certificate:
    directory: /etc/jupyterhub/tls
    group: jupyterhub
    names: [head, head.lab.internal, 10.20.0.10]
    authority_dir: .secrets/tls_ca
"""

RETURN = r"""
reasons:
  description: Why a certificate was, or would be, signed.
  returned: success
  type: list
  elements: str
  sample: [the names differ]
"""

import grp
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, runner, write_atomically


def look(directory: Path, owner: tuple[int, int] | None, run: Run, check_mode: bool) -> dict[str, Any]:
    """Make the key if there is none; return its public half and the certificates that are there."""
    key, made = directory / "server.key", False
    if not key.exists():
        made = True
        if check_mode:
            return {"changed": True, "key": "", "files": {}}
        code, out, err = run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], None)
        if code:
            raise HpcError(f"openssl made no key: {err.strip()}")
        write_atomically(key, out if isinstance(out, bytes) else out.encode(), 0o640, owner)
    code, public, err = run(["openssl", "pkey", "-pubout", "-in", str(key)], None)
    if code:
        raise HpcError(f"{key} is no private key: {err.strip()}", "move it away; a new one is made.")
    files = {
        name: (directory / name).read_text() if (directory / name).exists() else "" for name in ("server.crt", "ca.crt")
    }
    return {"changed": made, "key": public, "files": files}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "group": {"type": "str", "default": "root"},
            "names": {"type": "list", "elements": "str", "default": []},
            "authority_dir": {"type": "path"},
            "authority_name": {"type": "str", "default": "turnkey"},
            "days": {"type": "int", "default": 397},
            "renew_days": {"type": "int", "default": 60},
            "_files": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    with errors_end(module):
        if module.params["_files"] is not None:
            for name, text in module.params["_files"].items():
                write_atomically(directory / Path(name).name, text.encode(), 0o644)
            module.exit_json(changed=True)
        try:
            owner = (0, grp.getgrnam(module.params["group"]).gr_gid)
        except KeyError:
            if not module.check_mode:
                raise HpcError(f"There is no group {module.params['group']!r}.") from None
            owner = None
        result = look(directory, owner, runner(module.run_command), module.check_mode)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
