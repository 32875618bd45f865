# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A callback that counts, by host, module runs on the host, and tasks that only cost the control node time.

It writes JSON to the file named by ``MODULE_RUNS_FILE``: ``{"node1": {"runs": 9, "idle": 2, "tasks": ["..."]}}``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: module_runs
type: aggregate
short_description: Counts module runs by host
description: For benchmarks and tests of this collection.
requirements:
  - The environment variable E(MODULE_RUNS_FILE).
"""

NO_MODULE = (
    "set_fact",
    "debug",
    "assert",
    "fail",
    "add_host",
    "group_by",
    "meta",
    "validate_argument_spec",
    "include_",
    "import_",
)


class CallbackModule(CallbackBase):
    """Count the tasks of each host."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_runs"

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, dict[str, Any]] = {}

    def _count(self, result: Any, kind: str) -> None:
        task = result.task
        host = task.delegate_to or result.host.get_name()
        cost = self.costs.setdefault(host, {"runs": 0, "idle": 0, "tasks": []})
        cost[kind] += 1
        cost["tasks"].append(f"{kind}: {task.get_name()}")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count a task that was done."""
        action = result.task.action.rpartition(".")[2]
        self._count(result, "idle" if action.startswith(NO_MODULE) else "runs")

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Count a task that was not needed."""
        self._count(result, "idle")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the counts."""
        Path(os.environ["MODULE_RUNS_FILE"]).write_text(json.dumps(self.costs, indent=1) + "\n")
