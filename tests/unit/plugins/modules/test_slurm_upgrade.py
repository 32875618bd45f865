# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_upgrade

NEW = "22.05.8-4+deb12u3"


@pytest.fixture
def calls(monkeypatch):
    made = []

    def debian(argv, stdin=None):
        made.append(argv[0])
        answers = {
            "dpkg-query": "slurm-client\t22.05.8-4+deb12u2\tslurm-wlm\tinstalled\n",
            "apt-cache": f"slurm-client:\n  Installed: 22.05.8-4+deb12u2\n  Candidate: {NEW}\n",
        }
        return 0, answers.get(argv[0], ""), ""

    monkeypatch.setattr(slurm_upgrade, "runner", lambda _run_command, _environment: debian)
    return made


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        slurm_upgrade.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_says_what_is_new_and_installs_nothing(capsys, calls):
    result = run(capsys, _ansible_check_mode=True, _ansible_diff=True)
    assert (result["changed"], result["after"], result["packages"]) == (True, NEW, {"slurm-client": NEW})
    assert result["diff"]["after"] == f"{NEW}\n"
    assert calls == ["apt-get", "dpkg-query", "apt-cache", "systemctl", "dpkg"]


def test_the_package_lists_are_fetched_only_where_that_is_wanted(capsys, calls):
    run(capsys, refresh=False, _ansible_check_mode=True)
    assert "apt-get" not in calls
