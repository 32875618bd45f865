# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import os
import shutil

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import registry_account

pytestmark = pytest.mark.skipif(not shutil.which("htpasswd"), reason="apache2-utils")


def run(capsys, path, password, check_mode=False):
    given = {"path": str(path), "name": "turnkey", "password": password, "_ansible_check_mode": check_mode}
    with patch_module_args({**given, "group": grp.getgrgid(os.getgid()).gr_name}), pytest.raises(SystemExit):
        registry_account.main()
    return '"changed": true' in capsys.readouterr().out


@pytest.mark.skipif(os.getuid() != 0, reason="the file becomes root's")
def test_the_file_is_written_once_for_a_password_and_is_not_for_everyone(tmp_path, capsys):
    path = tmp_path / "htpasswd"
    assert run(capsys, path, "one", check_mode=True)
    assert not path.exists()
    assert run(capsys, path, "one")
    assert path.stat().st_mode & 0o777 == 0o640
    assert not run(capsys, path, "one")
    assert run(capsys, path, "two")
