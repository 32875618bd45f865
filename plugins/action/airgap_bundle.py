# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what the module of this name does while it works, which takes minutes; documented with the module."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.turnkey.hpc.plugins.action.cluster_machines import follow

MODULE = "turnkey.hpc.airgap_bundle"


class ActionModule(ActionBase):
    """Run the module, and print each line that it writes to its progress file."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, with progress."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        with tempfile.TemporaryDirectory(prefix="turnkey-") as folder:
            path = Path(folder) / "progress"
            path.touch()
            finished = threading.Event()
            follower = threading.Thread(target=follow, args=(path, finished, Display().display), daemon=True)
            follower.start()
            try:
                arguments = {**self._task.args, "progress_file": str(path)}
                result.update(self._execute_module(MODULE, module_args=arguments, task_vars=task_vars))
            finally:
                finished.set()
                follower.join()
        result.get("invocation", {}).get("module_args", {}).pop("progress_file", None)
        return result
