# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection signs and revokes, judged by OpenSSH's own ssh-keygen."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _ssh_ca, _ssh_identity


def run(argv: list[str], stdin: str | None = None) -> tuple[int, str, str]:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def keygen(*argv: object) -> str:
    code, out, err = run(["ssh-keygen", *map(str, argv)])
    assert code == 0, err
    return out


def make_authority(directory: Path, revoked: list[str]) -> _ssh_ca.Authority:
    plan, _authority = _ssh_ca.plan_authority(directory, {}, revoked, ["node?"])
    return _ssh_ca.apply_authority(plan, {}, revoked, ["node?"], run)


@pytest.fixture
def authority(tmp_path: Path) -> _ssh_ca.Authority:
    return make_authority(tmp_path / "ssh_ca", [])


@pytest.fixture
def public_key(tmp_path: Path) -> str:
    keygen("-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    private = (tmp_path / "key").read_text()
    public = _ssh_identity.private_to_public(private)
    assert public.split() == (tmp_path / "key.pub").read_text().split()[:2]
    assert _ssh_identity.fingerprint(public) in keygen("-l", "-f", tmp_path / "key.pub")
    return public


def user_request(public_key: str) -> _ssh_ca.CertificateRequest:
    sources = _ssh_ca.source_addresses(["10.213.77.0/24"])
    return _ssh_ca.user_request(public_key, "alice", "node2", 90, sources, _ssh_ca.USER_EXTENSIONS)


def test_ssh_keygen_reads_a_user_certificate_as_it_was_meant(authority, public_key, tmp_path) -> None:
    certificate = _ssh_ca.sign(user_request(public_key), authority.user, int(time.time()))
    (tmp_path / "key-cert.pub").write_text(certificate.text)
    listing = keygen("-L", "-f", tmp_path / "key-cert.pub")
    assert "ssh-ed25519-cert-v01@openssh.com user certificate" in listing
    assert 'Key ID: "alice@node2"' in listing
    assert f"Serial: {certificate.serial}" in listing
    assert f"Signing CA: ED25519 {authority.user.fingerprint}" in listing
    assert "source-address 10.213.77.0/24,127.0.0.0/8,::1/128" in listing
    assert [line.strip() for line in listing.split("Extensions:")[1].splitlines() if line.strip()] == sorted(
        _ssh_ca.USER_EXTENSIONS
    )


def test_ssh_keygen_reads_a_host_certificate_as_it_was_meant(authority, public_key, tmp_path) -> None:
    request = _ssh_ca.host_request(public_key, "node2", ["node2", "node2.demo.internal", "10.213.77.12"], 365)
    (tmp_path / "key-cert.pub").write_text(_ssh_ca.sign(request, authority.host, int(time.time())).text)
    listing = keygen("-L", "-f", tmp_path / "key-cert.pub")
    assert "host certificate" in listing
    assert listing.split("Principals:")[1].split()[:3] == ["node2", "node2.demo.internal", "10.213.77.12"]


def test_a_certificate_of_ssh_keygen_is_read_the_same_way(authority, public_key, tmp_path) -> None:
    options = ["-I", "x", "-n", "alice,bob", "-V", "-1h:+1h", "-z", "9", "-O", "clear", "-O", "permit-pty"]
    keygen("-q", "-s", authority.directory / "user_ca", *options, tmp_path / "key.pub")
    certificate = _ssh_ca.parse_certificate((tmp_path / "key-cert.pub").read_text())
    assert (certificate.key_id, certificate.serial, certificate.principals) == ("x", 9, ("alice", "bob"))
    assert certificate.extensions == ("permit-pty",)
    assert certificate.ca_fingerprint == authority.user.fingerprint
    assert certificate.signed


@pytest.mark.parametrize(
    ("entry", "revoked"),
    [
        ("serial: {serial}", True),
        ("id: alice@node2", True),
        ("key: {key}", True),
        ("sha256: {key}", True),
        ("sha1: {key}", True),
        ("sha256: {fingerprint}", True),
        ("hash: {fingerprint}", True),
        ("serial: 1-5", False),
        ("id: alice@node1", False),
    ],
)
def test_ssh_keygen_and_this_collection_agree_on_what_is_revoked(
    authority, public_key, tmp_path, entry, revoked
) -> None:
    certificate = _ssh_ca.sign(user_request(public_key), authority.user, int(time.time()))
    (tmp_path / "key-cert.pub").write_text(certificate.text)
    line = entry.format(serial=certificate.serial, key=public_key, fingerprint=certificate.fingerprint)
    make_authority(authority.directory, [line])
    code, out, _err = run(
        ["ssh-keygen", "-Q", "-f", str(authority.directory / "revoked.krl"), str(tmp_path / "key-cert.pub")]
    )
    assert (code != 0) is revoked, out
    entries = _ssh_ca.parse_revocations([line])
    assert any(item.matches(certificate) for item in entries) is revoked


def test_a_list_that_was_emptied_revokes_nothing(authority, public_key, tmp_path) -> None:
    make_authority(authority.directory, [f"key: {public_key}"])
    make_authority(authority.directory, [])
    keygen("-Q", "-f", authority.directory / "revoked.krl", tmp_path / "key.pub")
