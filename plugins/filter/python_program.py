# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program from modules of the collection."""

from __future__ import annotations

DOCUMENTATION = r"""
name: python_program
short_description: One executable file from Python modules of the collection
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Returns the text of a Python program that consists of a module of the collection's C(module_utils) and of all
    modules of the collection that it imports, directly or not. It needs Python 3.9 and the standard library.
positional: _input
options:
  _input:
    description: The module whose function C(main(argv)) the program runs, below C(module_utils).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Install node-power
  turnkey.hpc.config_files:
    files:
      - path: /usr/local/bin/node-power
        content: "{{ '_elastic.main' | turnkey.hpc.python_program }}"
        mode: "0755"
"""

RETURN = r"""
_value:
  description: The text of the program.
  type: str
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._program import program


def _filter(entry: str) -> str:
    """Return the program; turn the collection's errors into Ansible's."""
    try:
        return program(str(entry))
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"python_program": _filter}
