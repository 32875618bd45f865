# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import registry_images


def run(capsys, tmp_path, **more):
    given = {"bundle": str(tmp_path), "registry": "127.0.0.1:1", "user": "turnkey", "password": "hunter2"}
    with patch_module_args({**given, "ca_file": str(tmp_path / "ca.crt"), **more}), pytest.raises(SystemExit):
        registry_images.main()
    return json.loads(capsys.readouterr().out)


def test_check_mode_works_while_nothing_is_there_yet(tmp_path, capsys):
    assert not run(capsys, tmp_path, bundle=str(tmp_path / "later"), _ansible_check_mode=True)["changed"]


def test_a_host_without_a_bundle_is_told_where_it_comes_from(tmp_path, capsys):
    (tmp_path / "ca.crt").write_text("ca")
    assert "run the role mirror first" in run(capsys, tmp_path)["msg"]
