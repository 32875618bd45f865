# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what the module of this name does while it works, minutes in a cloud; documented with the module."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

POLL_SECONDS = 0.3


class ActionModule(ActionBase):
    """Run the module, and print each line that it writes to its progress file."""

    _supports_check_mode = True
    _supports_diff = True
    module = "turnkey.hpc.cluster_machines"

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module on the host of the task, with progress if that is the control node."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if self._connection.transport != "local" or arguments.get("progress_file"):
            result.update(self._execute_module(self.module, module_args=arguments, task_vars=task_vars))
            return result
        with tempfile.TemporaryDirectory(prefix="turnkey-") as folder:
            path = Path(folder) / "progress"
            path.touch()
            finished = threading.Event()
            follower = threading.Thread(target=follow, args=(path, finished, Display().display), daemon=True)
            follower.start()
            try:
                arguments["progress_file"] = str(path)
                result.update(self._execute_module(self.module, module_args=arguments, task_vars=task_vars))
            finally:
                finished.set()
                follower.join()
        result.get("invocation", {}).get("module_args", {}).pop("progress_file", None)
        return result


def follow(path: Path, finished: threading.Event, show: Callable[[str], object]) -> None:
    """Show the lines of a growing file until it is finished."""
    with path.open(encoding="utf-8") as file:
        rest = ""
        while True:
            last = finished.is_set()
            rest += file.read()
            *lines, rest = rest.split("\n")
            for line in lines:
                show(f"  {line}")
            if last:
                return
            finished.wait(POLL_SECONDS)
