# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime

from ansible_collections.turnkey.hpc.plugins.action.tls_certificate import OPTIONS, make_files
from ansible_collections.turnkey.hpc.plugins.module_utils._tls import load_authority
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.datetime.now(datetime.timezone.utc)


def look(files=None):
    """Return what the module reports of a host with a new key."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    text = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    return {"key": text, "files": {"server.crt": "", "ca.crt": "", **(files or {})}}


def settings(tmp_path):
    defaults = {name: option.get("default") for name, option in OPTIONS.items()}
    return {**defaults, "names": ["head"], "authority_dir": str(tmp_path / "ca")}


def test_a_host_gets_its_certificate_and_that_of_the_authority_and_then_nothing(tmp_path):
    report = look()
    files, reasons = make_files(settings(tmp_path), report, False, NOW)
    assert sorted(files) == ["ca.crt", "server.crt"]
    assert reasons == ["there is none"]
    assert make_files(settings(tmp_path), {**report, "files": files}, False, NOW) == ({}, [])


def test_a_host_that_lost_the_authoritys_certificate_gets_it_again(tmp_path):
    report = look()
    files, _reasons = make_files(settings(tmp_path), report, False, NOW)
    report["files"] = {**files, "ca.crt": ""}
    again, reasons = make_files(settings(tmp_path), report, False, NOW)
    assert list(again) == ["ca.crt"]
    assert len(reasons) == 1


def test_check_mode_makes_no_authority(tmp_path):
    assert make_files(settings(tmp_path), look(), True, NOW) == ({}, ["there is none"])
    assert load_authority(tmp_path / "ca") is None
