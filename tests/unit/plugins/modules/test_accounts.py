# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import accounts


def run(capsys, **arguments):
    with patch_module_args({"_ansible_check_mode": True, **arguments}), pytest.raises(SystemExit):
        accounts.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_tells_what_a_new_account_needs(capsys, tmp_path):
    account = {"name": "turnkey-unit-test", "uid": 54321, "home": str(tmp_path / "home"), "sudo": True}
    result = run(capsys, accounts=[account], _ansible_diff=True)
    assert [change.split(":")[1].strip() for change in result["changes"]] == ["group", "account", "sudo"]
    assert "uid 54321" in result["diff"]["after"]
    assert not (tmp_path / "home").exists()


def test_a_taken_name_is_one_clear_message_with_a_remedy(capsys):
    result = run(capsys, accounts=[{"name": "root", "uid": 54321}])
    assert result["failed"]
    assert "root should have uid 54321, but exists with uid 0." in result["msg"]
    assert "Remedy:" in result["msg"]


def test_wrong_input_is_refused_before_the_host_is_read(capsys):
    assert "can't be a login name" in run(capsys, accounts=[{"name": "Root", "uid": 2001}])["msg"]
