# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_node

NODES = "NodeName=n1 State=IDLE\nNodeName=n2 State=MIXED+DRAIN Reason=disk [root@2026-11-22T09:33:29]\n"


@pytest.fixture
def calls(monkeypatch):
    made = []

    def slurm(argv, stdin=None):
        made.append(argv)
        return 0, NODES if "show" in argv else "", ""

    monkeypatch.setattr(slurm_node, "runner", lambda _run_command: slurm)
    return made


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        slurm_node.main()
    return json.loads(capsys.readouterr().out)


def test_only_nodes_that_are_not_drained_are_drained(capsys, calls):
    result = run(capsys, name=["n[1-2]"], state="drain", reason="kernel", _ansible_diff=True)
    assert (result["changed"], result["nodes"]) == (True, "n1")
    assert result["states"] == {"n1": ["IDLE"], "n2": ["DRAIN", "MIXED"]}
    assert result["diff"]["before"] == "n1: IDLE\n"
    assert calls[-1] == ["scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=kernel"]


def test_check_mode_changes_nothing(capsys, calls):
    assert run(capsys, name=["n1"], state="drain", reason="kernel", _ansible_check_mode=True)["changed"]
    assert not any("update" in argv for argv in calls)


def test_check_mode_on_a_host_without_slurm_takes_all_nodes_for_changed(capsys, monkeypatch):
    monkeypatch.setattr(slurm_node, "runner", lambda _run_command: lambda argv, _stdin: (127, "", argv[0]))
    result = run(capsys, name=["n[1-3]"], state="resume", _ansible_check_mode=True)
    assert (result["changed"], result["nodes"]) == (True, "n[1-3]")


def test_a_drain_without_a_reason_is_refused(capsys, calls):
    assert "without a reason" in run(capsys, name=["n1"], state="drain")["msg"]
    assert not calls
