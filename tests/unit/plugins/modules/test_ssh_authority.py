# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("cryptography")

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.modules import ssh_authority


def run_command(argv, **_options):
    Path(argv[argv.index("-f") + 1]).write_bytes(b"KRL")
    return 0, "", ""


def call(directory, check=False, **params):
    defaults = {"host_ca_key": "", "user_ca_key": "", "revoked": [], "retire": [], "state": "present"}
    params = {**defaults, "host_patterns": ["node?"], "directory": str(directory), **params}
    return ssh_authority.run(SimpleNamespace(params=params, check_mode=check, run_command=run_command))


def test_check_mode_speaks_of_new_keys_and_makes_none(tmp_path) -> None:
    result = call(tmp_path / "ca", check=True)
    assert result["changed"]
    assert result["host_ca"] == ""
    assert "new host CA key" in str(result["diff"])
    assert not (tmp_path / "ca").exists()


def test_a_second_run_changes_nothing_and_returns_the_same_keys(tmp_path) -> None:
    first, second = call(tmp_path / "ca"), call(tmp_path / "ca")
    assert first["changed"]
    assert not second["changed"]
    assert first["host_ca"] == second["host_ca"] != first["user_ca"]
    assert second["host_patterns"] == ["node?"]


def test_no_private_key_is_in_the_result(tmp_path) -> None:
    assert "PRIVATE" not in str(call(tmp_path / "ca"))


def test_a_wrong_revocation_list_makes_nothing(tmp_path) -> None:
    with pytest.raises(HpcError, match="'nonsense'"):
        call(tmp_path / "ca", revoked=["nonsense"])
    assert not (tmp_path / "ca").exists()


def test_what_a_node_that_left_was_given_stays_revoked_in_later_runs(tmp_path) -> None:
    directory = tmp_path / "ca"
    call(directory)
    record = {"serial": 7, "key_id": "alice@node2", "valid_before": "2999-01-01T00:00:00Z"}
    (directory / "issued.jsonl").write_text(json.dumps(record) + "\n")
    assert call(directory, check=True, retire=["node2"])["changed"]
    assert not (directory / "retired.spec").exists()
    assert call(directory, retire=["node2"])["changed"]
    assert not call(directory, retire=["node2"])["changed"]
    later = call(directory, revoked=["serial: 9"])
    assert later["revoked"] == ["serial: 9", "serial: 7"]
    assert "serial: 7" in (directory / "revoked.spec").read_text()


def test_an_absent_authority_stays_absent(tmp_path) -> None:
    call(tmp_path / "ca")
    assert call(tmp_path / "ca", check=True, state="absent")["changed"]
    assert (tmp_path / "ca" / "host_ca").exists()
    assert call(tmp_path / "ca", state="absent")["changed"]
    assert not call(tmp_path / "ca", state="absent")["changed"]
