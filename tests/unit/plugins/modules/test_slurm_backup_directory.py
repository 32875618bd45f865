# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_backup_directory


def run(capsys, **arguments):
    with patch_module_args({"cluster": "lab", **arguments}), pytest.raises(SystemExit):
        slurm_backup_directory.main()
    return json.loads(capsys.readouterr().out)


def test_a_place_for_a_new_backup_has_its_date_as_name(capsys, tmp_path):
    result = run(capsys, state="begun", path=str(tmp_path))
    assert result["path"] == str(tmp_path / "lab" / f"{result['name']}.part")
    assert (tmp_path / "lab" / f"{result['name']}.part").is_dir()


def test_check_mode_makes_nothing(capsys, tmp_path):
    assert run(capsys, state="begun", path=str(tmp_path / "new"), _ansible_check_mode=True)["changed"]
    assert not (tmp_path / "new").exists()


def test_no_backup_is_one_clear_message(capsys, tmp_path):
    assert "There is no backup in" in run(capsys, state="found", path=str(tmp_path))["msg"]
