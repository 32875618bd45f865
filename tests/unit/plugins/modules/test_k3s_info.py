# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import k3s_info


def run(capsys, monkeypatch, problems=(), **arguments):
    def find(host, interface):
        return [*problems, *[f"no {interface}"] * bool(interface)]

    monkeypatch.setattr(k3s_info.Host, "problems", find)
    with patch_module_args(arguments), pytest.raises(SystemExit):
        k3s_info.main()
    return json.loads(capsys.readouterr().out)


def test_a_bare_host_is_no_member_of_anything(capsys, monkeypatch, tmp_path):
    found = run(capsys, monkeypatch, work_dir=str(tmp_path))
    assert (found["member"], found["changed"]) == (False, False)


def test_all_that_is_wrong_is_told_at_once_without_the_secrets(capsys, monkeypatch, tmp_path):
    (tmp_path / "server/db").mkdir(parents=True)
    (tmp_path / "server/db/state.db").write_text("")
    (tmp_path / "server/token").write_text(f"K10{'0' * 64}::server:theirs")
    given = {"work_dir": str(tmp_path), "interface": "eth7", "token": "ours-ours-ours"}
    message = run(capsys, monkeypatch, ["no memory"], **given)["msg"]
    assert message.startswith("3 problems:")
    assert "no eth7" in message
    assert "encrypted with another k3s_token" in message
    assert "theirs" not in message
    assert "ours-ours-ours" not in message
