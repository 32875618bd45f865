# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The text of one of Slurm's files of keys and values."""

from __future__ import annotations

DOCUMENTATION = r"""
name: slurm_conf_text
short_description: The text of one of Slurm's files of keys and values
version_added: "0.1.0"
author: The turnkey.hpc founders (@turnkey-hpc)
description:
  - Makes C(slurmdbd.conf) or another file, with the rules of M(turnkey.hpc.slurm_config).
  - A key that the release doesn't know, or that belongs to the caller, is an error. All are reported at once.
positional: _input, name, release
options:
  _input:
    description: Keys and values of the user. V(null) removes a key of O(defaults), lists become commas.
    type: dict
    required: true
  name:
    description: Name of the file.
    type: str
    required: true
  release:
    description: Release of Slurm.
    type: str
    required: true
  defaults:
    description: Keys and values that the user may change.
    type: dict
    default: {}
  owned:
    description: Keys and values that the user may not change.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Write slurmdbd.conf
  turnkey.hpc.config_files:
    files:
      - path: /etc/slurm/slurmdbd.conf
        content: "{{ {'PurgeJobAfter': '12months'} | turnkey.hpc.slurm_conf_text('slurmdbd.conf', '22.05') }}"
        owner: slurm
        mode: "0600"
"""

RETURN = r"""
_value:
  description: The text of the file.
  type: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.config import Layers, key_value_text
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.keys import release_of


def slurm_conf_text(
    options: Mapping[str, Any],
    name: str,
    release: str,
    defaults: Mapping[str, Any] | None = None,
    owned: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of the file ``name``."""
    problems: list[str] = []
    layers = Layers({name: defaults or {}}, {name: owned or {}}, {name: options or {}})
    layers.files(problems)
    text = "" if problems else key_value_text(name, layers, release_of(str(release)), problems)
    if problems:
        raise InvalidInput(join_problems(problems))
    return text


def _filter(*arguments: Any, **named: Any) -> str:
    """Turn the collection's errors into Ansible's."""
    try:
        return slurm_conf_text(*arguments, **named)
    except HpcError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filter."""
        return {"slurm_conf_text": _filter}
