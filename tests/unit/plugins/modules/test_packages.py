# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import packages


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        packages.main()
    return json.loads(capsys.readouterr().out)


def test_a_removal_for_an_owner_without_packages_changes_nothing(capsys):
    result = run(capsys, owner="nobody-of-this-name", state="absent", _ansible_check_mode=True)
    assert (result["changed"], result["installed"], result["removed"]) == (False, [], [])


def test_a_name_that_is_an_option_fails_before_anything_runs(capsys):
    result = run(capsys, owner="x", name=["--allow-downgrades"])
    assert result["failed"]
    assert "'--allow-downgrades' can't be the name" in result["msg"]


def test_an_owner_is_required(capsys):
    assert "owner" in run(capsys, name=["less"])["msg"]
