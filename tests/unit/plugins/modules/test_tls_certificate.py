# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import tls_certificate

GROUP = grp.getgrgid(os.getgid()).gr_name


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        tls_certificate.main()
    return json.loads(capsys.readouterr().out)


def test_the_host_makes_its_key_once_and_shows_its_public_half_only(capsys, tmp_path):
    first = run(capsys, directory=str(tmp_path), group=GROUP)
    key = tmp_path / "server.key"
    assert key.stat().st_mode & 0o777 == 0o640
    assert first["key"].startswith("-----BEGIN PUBLIC KEY-----")
    assert key.read_text() not in json.dumps(first)
    second = run(capsys, directory=str(tmp_path), group=GROUP)
    assert (first["changed"], second["changed"]) == (True, False)
    assert first["key"] == second["key"]


def test_check_mode_makes_no_key_and_needs_no_group(capsys, tmp_path):
    result = run(capsys, directory=str(tmp_path), group="nobody-here", _ansible_check_mode=True)
    assert (result["changed"], result["key"]) == (True, "")
    assert not list(tmp_path.iterdir())


def test_certificates_that_were_signed_are_written(capsys, tmp_path):
    run(capsys, directory=str(tmp_path), _files={"server.crt": "certificate\n", "../evil": "x"})
    assert (tmp_path / "server.crt").read_text() == "certificate\n"
    assert not (tmp_path.parent / "evil").exists()


def test_a_group_that_does_not_exist_is_one_clear_message(capsys, tmp_path):
    assert "'nobody-here'" in run(capsys, directory=str(tmp_path), group="nobody-here")["msg"]
