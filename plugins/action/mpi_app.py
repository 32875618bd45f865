# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the tree of ``turnkey.hpc.mpi_app`` on the control node; the module runs it on the head node."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.manifest import change
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.plan import prospect
from ansible_collections.turnkey.hpc.plugins.plugin_utils._mpi_source import pack, read


class ActionModule(ActionBase):
    """Check the manifest here, and hand the tree over in the module's arguments."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Say what would be built and run, or let the module do it."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if not arguments.get("src"):
            raise AnsibleActionFail("missing required arguments: src")
        source = Path(str(arguments["src"])).expanduser().resolve()
        options = arguments.get("options") or {}
        if not isinstance(options, dict):
            raise AnsibleActionFail(f"options is {options!r}, which is no dictionary such as {{hosts: 8}}.")
        try:
            manifest = change(read(source), [f"{key}={value}" for key, value in options.items()])
            if self._task.check_mode:
                result.update(changed=True, app=arguments.get("name") or source.name, **prospect(manifest))
                return result
            arguments["_archive"] = base64.b64encode(pack(source)).decode()
        except HpcError as error:
            raise AnsibleActionFail(str(error)) from error
        arguments.setdefault("name", source.name)
        result.update(
            self._execute_module(
                module_name="turnkey.hpc.mpi_app", module_args=arguments, task_vars=task_vars, wrap_async=False
            )
        )
        return result
