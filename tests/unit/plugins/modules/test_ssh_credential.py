# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("cryptography")

from ansible_collections.turnkey.hpc.plugins.module_utils import _ssh_ca
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.modules import ssh_credential


def fake_keygen(argv, stdin=None):
    Path(argv[argv.index("-f") + 1]).write_bytes(b"KRL")
    return 0, "", ""


@pytest.fixture
def authority_dir(tmp_path) -> Path:
    directory = tmp_path / "ca"
    plan, _authority = _ssh_ca.plan_authority(directory, {}, ["id: barred"], [])
    _ssh_ca.apply_authority(plan, {}, ["id: barred"], [], fake_keygen)
    return directory


def call(path, authority_dir, check=False, **params):
    defaults = {"principals": ["alice"], "valid_minutes": 60, "key_id": None, "state": "present"}
    params = {**defaults, "host_ca_key": "", "user_ca_key": "", **params}
    params.update(path=str(path), authority_dir=str(authority_dir))
    return ssh_credential.run(SimpleNamespace(params=params, check_mode=check))


def test_a_credential_is_made_once_and_reused(authority_dir, tmp_path) -> None:
    first, second = call(tmp_path / "key", authority_dir), call(tmp_path / "key", authority_dir)
    assert first["changed"]
    assert not second["changed"]
    assert first["serial"] == second["serial"]
    certificate = _ssh_ca.parse_certificate(first["certificate"])
    assert (certificate.key_id, certificate.principals) == ("credential:alice", ("alice",))
    assert certificate.critical_options == {}


def test_check_mode_makes_no_files(authority_dir, tmp_path) -> None:
    assert call(tmp_path / "key", authority_dir, check=True)["changed"]
    assert call(tmp_path / "key", tmp_path / "none", check=True)["changed"]
    assert not (tmp_path / "key").exists()


def test_a_missing_authority_or_a_barred_key_id_is_an_error(authority_dir, tmp_path) -> None:
    with pytest.raises(HpcError, match="There is no SSH authority"):
        call(tmp_path / "key", tmp_path / "none")
    with pytest.raises(HpcError, match="'barred' is on the revocation list"):
        call(tmp_path / "key", authority_dir, key_id="barred")


def test_an_absent_credential_leaves_no_files(authority_dir, tmp_path) -> None:
    call(tmp_path / "out" / "key", authority_dir)
    assert call(tmp_path / "out" / "key", authority_dir, state="absent")["changed"]
    assert list((tmp_path / "out").iterdir()) == []
    assert not call(tmp_path / "out" / "key", authority_dir, state="absent")["changed"]
