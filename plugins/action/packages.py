# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages of a host; while a bundle is made, the wishes for them. Documented with the module."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

MODULE = "turnkey.hpc.packages"
# bundle.yml lets the roles' install parts run with this variable, so that no second list says what they install.
COLLECTS = "__bundle_collects"
FACT = "bundle_packages"


def collect(noted: dict[str, list[str]], arguments: dict[str, Any]) -> dict[str, list[str]]:
    """Return what is ``noted`` by owner, and what a task with ``arguments`` wants."""
    owner, names = str(arguments["owner"]), arguments.get("name") or []
    wanted = [names] if isinstance(names, str) else [str(name) for name in names]
    return {**noted, owner: sorted({*noted.get(owner, []), *wanted})}


class ActionModule(ActionBase):
    """Runs the module, or notes what it would install."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run on the host, unless wishes are collected."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if variables.get(COLLECTS):
            noted = variables.get("ansible_facts", {}).get(FACT, {})
            return {**result, "changed": False, "ansible_facts": {FACT: collect(noted, self._task.args)}}
        result.update(self._execute_module(MODULE, module_args=dict(self._task.args), task_vars=task_vars))
        return result
