# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_backup


def run(capsys, **arguments):
    values = {"parts": ["state"], "cluster": "lab", "made_at": "20261122T101500Z", **arguments}
    with patch_module_args(values), pytest.raises(SystemExit):
        slurm_backup.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_names_the_archives_and_makes_nothing(capsys, tmp_path):
    result = run(capsys, path=str(tmp_path / "new"), _ansible_check_mode=True)
    assert (result["changed"], result["archives"]) == (True, [str(tmp_path / "new/state.tar")])
    assert not (tmp_path / "new").exists()


def test_what_is_no_state_is_one_clear_message(capsys, tmp_path):
    result = run(capsys, path=str(tmp_path), state_dir=str(tmp_path), hold_controller=False)
    assert f"{tmp_path} is not the state of a slurmctld. Remedy:" in result["msg"]
