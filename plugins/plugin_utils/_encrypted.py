# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values that are encrypted with Ansible Vault one by one."""

from __future__ import annotations

from typing import Any

from ansible.parsing.vault import EncryptedString

__all__ = ["hide_encrypted"]


def hide_encrypted(value: Any) -> Any:
    """Return the value with a template in place of what is encrypted, which no one can judge nor any message show."""
    if isinstance(value, EncryptedString):
        return "{{ encrypted }}"
    if isinstance(value, dict):
        return {key: hide_encrypted(inner) for key, inner in value.items()}
    return [hide_encrypted(inner) for inner in value] if isinstance(value, list) else value
