# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import host_survey


def run(capsys, **arguments):
    with patch_module_args({**arguments, "_ansible_check_mode": True}), pytest.raises(SystemExit):
        host_survey.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_surveys_this_machine_in_check_mode_and_changes_nothing(capsys):
    result = run(capsys, paths=["/"])
    assert result["changed"] is False
    assert result["survey"]["disks"][0]["paths"] == ["/"]


def test_a_user_without_a_gid_has_the_uid_as_gid(capsys):
    users = [{"name": "nobody-has-this", "uid": 54321}, {"name": "root", "uid": 0, "gid": 7}]
    first, second = run(capsys, users=users)["survey"]["accounts"]
    assert (first["gid"], first["uid_of_name"]) == (54321, None)
    assert (second["gid"], second["uid_of_name"], second["name_of_uid"]) == (7, 0, "root")
