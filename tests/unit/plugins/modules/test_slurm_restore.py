# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.backup import pack_state
from ansible_collections.turnkey.hpc.plugins.modules import slurm_restore


@pytest.fixture
def archive(tmp_path, monkeypatch):
    def slurm(argv, stdin=None):
        return 0, "slurm-wlm 22.05.8\n", ""

    monkeypatch.setattr(slurm_restore, "runner", lambda _run_command: slurm)
    state = tmp_path / "state"
    state.mkdir()
    (state / "clustername").write_text("lab")
    pack_state(slurm, tmp_path / "state.tar", "lab", state, "20261122T101500Z")
    return tmp_path


def run(capsys, **arguments):
    with patch_module_args({"parts": ["state"], "cluster": "lab", **arguments}), pytest.raises(SystemExit):
        slurm_restore.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_says_what_the_archive_is_and_replaces_nothing(capsys, archive):
    target = archive / "target"
    result = run(capsys, path=str(archive), state_dir=str(target), _ansible_check_mode=True)
    assert result["manifests"] == [
        {"part": "state", "cluster": "lab", "version": "22.05.8", "made_at": "20261122T101500Z"}
    ]
    assert not target.exists()


def test_a_backup_of_another_cluster_is_refused_in_check_mode_too(capsys, archive):
    result = run(capsys, path=str(archive), cluster="other", _ansible_check_mode=True)
    assert "of cluster 'lab', not of the state of cluster 'other'" in result["msg"]


def test_an_archive_that_is_missing_is_one_clear_message(capsys, tmp_path):
    assert "is no archive of backup.yml" in run(capsys, path=str(tmp_path))["msg"]
