# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import ssl
import subprocess

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _tls as tls
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput

NOW = datetime.datetime.now(datetime.timezone.utc)
NAMES = ["head", "head.lab.internal", "10.20.0.10"]


def openssl(*argv, stdin=None):
    return subprocess.run(["openssl", *argv], input=stdin, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def authority(tmp_path):
    return tls.make_authority(tmp_path / "ca", "lab", NOW)


@pytest.fixture(scope="module")
def keys():
    private = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    return private, openssl("pkey", "-pubout", stdin=private)


def test_an_authority_is_made_once_and_kept_for_its_owner_alone(tmp_path, authority):
    again = tls.make_authority(tmp_path / "ca", "other", NOW)
    assert again.text == authority.text
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "ca/ca.key").stat().st_mode & 0o777 == 0o600


def test_half_an_authority_is_never_replaced(tmp_path, authority):
    (tmp_path / "ca/ca.key").unlink()
    with pytest.raises(HpcError, match="can't be read"):
        tls.make_authority(tmp_path / "ca", "lab", NOW)


def test_keys_of_two_authorities_are_an_error(tmp_path, authority):
    tls.make_authority(tmp_path / "other", "lab", NOW)
    (tmp_path / "other/ca.key").rename(tmp_path / "ca/ca.key")
    with pytest.raises(HpcError, match="don't belong together"):
        tls.load_authority(tmp_path / "ca")


def test_openssl_and_python_take_the_certificate_for_its_names_only(tmp_path, authority, keys):
    certificate = tmp_path / "server.crt"
    certificate.write_text(tls.sign(authority, keys[1], NAMES, 397, NOW))
    trusted = ["-CAfile", str(tmp_path / "ca/ca.crt"), "-purpose", "sslserver", "-x509_strict"]
    openssl("verify", *trusted, "-verify_hostname", "head", str(certificate))
    openssl("verify", *trusted, "-verify_ip", "10.20.0.10", str(certificate))
    with pytest.raises(subprocess.CalledProcessError):
        openssl("verify", *trusted, "-verify_hostname", "other", str(certificate))
    ssl.create_default_context(cafile=str(tmp_path / "ca/ca.crt"))


def test_a_certificate_that_is_as_it_should_be_is_left_alone(authority, keys):
    text = tls.sign(authority, keys[1], NAMES, 397, NOW)
    assert tls.renewal_reasons(authority, text, keys[1], reversed(NAMES), 60, NOW) == []


@pytest.mark.parametrize("change", ["none", "broken", "names", "key", "authority", "age"])
def test_a_certificate_is_signed_anew_for_a_reason(tmp_path, authority, keys, change):
    text, key, names, now = tls.sign(authority, keys[1], NAMES, 397, NOW), keys[1], NAMES, NOW
    if change == "none":
        text, reason = "", "there is none"
    elif change == "broken":
        text, reason = "x", "it can't be read"
    elif change == "names":
        names, reason = [*NAMES, "hub.example.org"], "the names differ"
    elif change == "key":
        private = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        key, reason = openssl("pkey", "-pubout", stdin=private), "the host has another key"
    elif change == "authority":
        authority, reason = tls.make_authority(tmp_path / "other", "lab", NOW), "another authority signed it"
    else:
        now, reason = NOW + datetime.timedelta(days=338), f"it ends at {NOW + datetime.timedelta(days=397):%Y-%m-%d}"
    assert tls.renewal_reasons(authority, text, key, names, 60, now) == [reason]


def test_a_name_that_is_none_is_refused(authority, keys):
    with pytest.raises(InvalidInput, match="neither a host name nor an address"):
        tls.sign(authority, keys[1], ["höst"], 397, NOW)
