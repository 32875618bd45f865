# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible_collections.turnkey.hpc.plugins.action import cluster_machines
from ansible_collections.turnkey.hpc.plugins.action.airgap_bundle import ActionModule


class Talking(ActionModule):
    """The plugin with a module that says how far it is."""

    def _execute_module(self, module_name, module_args, **more):
        Path(module_args["progress_file"]).write_text("packages for Debian 12 amd64\n10 of 20 MB\n")
        return {"changed": True, "invocation": {"module_args": dict(module_args)}}


def test_progress_is_shown_and_its_file_is_not_in_the_result(monkeypatch):
    shown = []
    monkeypatch.setattr(cluster_machines, "Display", lambda: SimpleNamespace(display=shown.append))
    task = SimpleNamespace(args={"path": "/b"}, async_val=0, check_mode=False, diff=False, action="airgap_bundle")
    loader = DataLoader()
    connection = SimpleNamespace(transport="local", _shell=SimpleNamespace(tmpdir=None))
    plugin = Talking(task, connection, SimpleNamespace(), loader, Templar(loader=loader), None)
    result = plugin.run(task_vars={})
    assert shown == ["  packages for Debian 12 amd64", "  10 of 20 MB"]
    assert result["invocation"]["module_args"] == {"path": "/b"}
