# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_accounting


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch):
    def absent(argv, stdin=None):
        return 127, "", f"{argv[0]}: No such file or directory"

    monkeypatch.setattr(slurm_accounting, "runner", lambda _run_command: absent)


def run(capsys, **arguments):
    with patch_module_args({"cluster": "lab", **arguments}), pytest.raises(SystemExit):
        slurm_accounting.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_on_a_host_without_slurm_tells_all_that_would_be_made(capsys):
    accounts = [{"name": "physics", "limits": {"MaxJobs": 5}}]
    result = run(capsys, accounts=accounts, _ansible_check_mode=True, _ansible_diff=True)
    assert (result["changed"], result["answered"]) == (True, False)
    assert result["changes"] == [
        "cluster lab: absent -> present",
        "account physics: absent -> below root",
        "account physics: MaxJobs: none -> 5",
    ]
    assert "account physics: MaxJobs: 5\n" in result["diff"]["after"]


def test_a_host_without_slurm_is_one_clear_message(capsys):
    assert run(capsys)["msg"].startswith("There is no sacctmgr on this host. Remedy: install")


def test_a_misspelt_limit_is_refused_before_slurm_is_asked(capsys):
    result = run(capsys, accounts=[{"name": "physics", "limits": {"MaxJob": 5}}])
    assert "did you mean MaxJobs?" in result["msg"]
