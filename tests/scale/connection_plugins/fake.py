# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to hosts that don't exist: every module answers with a plausible ok.

What runs on the control node is the real thing, so its CPU time can be measured for any number of hosts. ``FAKE_LOG``
names a file that gets a line ``HOST MODULE`` for each module run. With ``FAKE_CHANGED=1`` configuration files differ.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = r"""
name: fake
short_description: Hosts that don't exist
description: For benchmarks and tests of this collection.
options:
  host:
    description: Name of the host.
    vars:
      - name: inventory_hostname
  pipelining:
    description: Whether modules are sent through standard input, as they have to be.
    type: bool
    default: true
"""

MODULE = re.compile(rb"ansible_collections\.turnkey\.hpc\.plugins\.modules\.(\w+)|ansible\.modules\.(\w+)")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"
FACTS = {
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "12",
    "ansible_virtualization_role": "guest",
    "ansible_virtualization_type": "kvm",
}
LOOK = {
    "host_key": KEY,
    "users": {"alice": KEY},
    "files": {},
    "host_key_line": False,
    "openssh": [9, 2],
    "reload": False,
}


def answer(module: str, changed: bool) -> dict[str, Any]:
    """Return what a module might say."""
    if module == "setup":
        return {"ansible_facts": FACTS}
    if module == "config_files":
        return {"changed": changed, "changed_paths": ["/etc/hosts"] if changed else [], "diff": []}
    if module == "ssh_identity":
        return {"changed": False, "diff": [], "report": LOOK}
    return {"changed": False, "installed": [], "removed": [], "diff": []}


class Connection(ConnectionBase):
    """Answers at once."""

    transport = "fake"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> tuple[int, bytes, bytes]:
        """Say what module was sent, and answer for it."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        found = MODULE.search(in_data or b"")
        name = next((part.decode() for part in found.groups() if part), "") if found else "command"
        with Path(os.environ["FAKE_LOG"]).open("a", encoding="utf-8") as log:
            log.write(f"{self.get_option('host')} {name}\n")
        return 0, json.dumps(answer(name, os.environ.get("FAKE_CHANGED") == "1")).encode(), b""

    def put_file(self, in_path: str, out_path: str) -> None:
        """Nothing is ever copied: modules are sent through standard input."""
        raise NotImplementedError

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Nothing is ever fetched."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is open."""
        self._connected = False
