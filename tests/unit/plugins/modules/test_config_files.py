# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import config_files


def run(capsys, *texts, **arguments):
    if texts:
        arguments["_texts"] = base64.b64encode(json.dumps(texts).encode()).decode()
    with patch_module_args({"_ansible_check_mode": True, **arguments}), pytest.raises(SystemExit):
        config_files.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_lists_the_path_and_shows_no_content(capsys, tmp_path):
    path = str(tmp_path / "a")
    result = run(capsys, {"content": "secret-text"}, files=[{"path": path}])
    assert (result["changed"], result["changed_paths"]) == (True, [path])
    assert "secret-text" not in json.dumps(result)
    assert not (tmp_path / "a").exists()


def test_diff_mode_shows_the_content(capsys, tmp_path):
    result = run(capsys, {"content": "text\n"}, files=[{"path": str(tmp_path / "a")}], _ansible_diff=True)
    assert result["diff"][0]["after"].endswith("text\n")


def test_wrong_input_is_one_clear_message(capsys):
    result = run(capsys, {}, {}, files=[{"path": "etc/a"}, {"path": "/etc/b"}])
    assert result["failed"]
    assert result["msg"].startswith("3 problems:")
