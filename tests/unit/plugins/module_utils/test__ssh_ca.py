# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from ansible_collections.turnkey.hpc.plugins.module_utils import _ssh_ca
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

NOW = 1_800_000_000
DAY = 86400
PATTERNS = ["node?"]


def fake_keygen(argv, stdin=None):
    Path(argv[argv.index("-f") + 1]).write_bytes(b"KRL")
    return 0, "", ""


def new_key() -> tuple[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return text.decode(), _ssh_ca.public_line(key.public_key())


def make_authority(directory: Path, given=None, revoked=()) -> _ssh_ca.Authority:
    given = given or {}
    plan, _authority = _ssh_ca.plan_authority(directory, given, revoked, PATTERNS)
    return _ssh_ca.apply_authority(plan, given, list(revoked), PATTERNS, fake_keygen)


@pytest.fixture
def authority(tmp_path) -> _ssh_ca.Authority:
    return make_authority(tmp_path / "secrets" / "ssh_ca")


@pytest.fixture
def request_() -> _ssh_ca.CertificateRequest:
    sources = _ssh_ca.source_addresses(["10.0.0.0/24"])
    return _ssh_ca.user_request(new_key()[1], "alice", "node1", 90, sources, _ssh_ca.USER_EXTENSIONS)


def reasons(request, text, authority, now=NOW, revoked=(), renew_days=30):
    entries = _ssh_ca.parse_revocations(revoked)
    return _ssh_ca.renewal_reasons(request, text, authority.user.fingerprint, now, renew_days * DAY, entries)


def test_the_authority_is_made_once_and_only_for_its_owner(tmp_path) -> None:
    directory = tmp_path / "secrets" / "ssh_ca"
    first = make_authority(directory)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in directory.iterdir()}
    assert modes["host_ca"] == modes["user_ca"] == "0o600"
    assert directory.stat().st_mode & 0o777 == directory.parent.stat().st_mode & 0o777 == 0o700
    plan, second = _ssh_ca.plan_authority(directory, {}, [], PATTERNS)
    assert not plan
    assert second is not None
    assert (second.host.public, second.user.public) == (first.host.public, first.user.public)
    assert (directory / "known_hosts").read_text() == f"@cert-authority node? {first.host.public}\n"


def test_planning_an_authority_writes_nothing(tmp_path) -> None:
    plan, authority = _ssh_ca.plan_authority(tmp_path / "ssh_ca", {}, [], PATTERNS)
    assert plan.make_keys == ["host", "user"]
    assert authority is None
    assert not (tmp_path / "ssh_ca").exists()


def test_given_keys_are_used_and_never_written(tmp_path) -> None:
    (host, host_public), (user, user_public) = new_key(), new_key()
    authority = make_authority(tmp_path / "ssh_ca", {"host": host, "user": user})
    assert (authority.host.public, authority.user.public) == (host_public, user_public)
    assert not [path for path in (tmp_path / "ssh_ca").iterdir() if b"PRIVATE" in path.read_bytes()]


def damage_mode(directory: Path) -> None:
    (directory / "host_ca").chmod(0o640)


def damage_directory(directory: Path) -> None:
    directory.chmod(0o755)


def damage_key(directory: Path) -> None:
    (directory / "user_ca").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n")


def damage_pair(directory: Path) -> None:
    (directory / "user_ca.pub").write_text(new_key()[1] + "\n")


def damage_missing(directory: Path) -> None:
    (directory / "host_ca").unlink()


def damage_same(directory: Path) -> None:
    (directory / "host_ca").write_bytes((directory / "user_ca").read_bytes())
    (directory / "host_ca.pub").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_mode, "host_ca has mode 0640, not 0600"),
        (damage_directory, "has mode 0755, not 0700"),
        (damage_key, "user CA key in .* can't be read"),
        (damage_pair, "user_ca.pub is of another key"),
        (damage_missing, "its private key .*host_ca is not"),
        (damage_same, "are the same key"),
    ],
)
def test_a_damaged_authority_is_an_error_and_stays_as_it_is(authority, damage, message) -> None:
    damage(authority.directory)
    before = {path.name: path.read_bytes() for path in authority.directory.iterdir()}
    with pytest.raises(HpcError, match=message):
        _ssh_ca.plan_authority(authority.directory, {}, [], PATTERNS)
    assert {path.name: path.read_bytes() for path in authority.directory.iterdir()} == before


def test_a_given_key_that_is_not_the_one_in_the_directory_is_an_error(authority) -> None:
    with pytest.raises(HpcError, match="is another key than ssh_mesh_host_ca_key"):
        _ssh_ca.load_authority(authority.directory, {"host": new_key()[0]})


def test_an_error_about_a_key_does_not_show_the_key(authority) -> None:
    secret = new_key()[0].replace("b3BlbnNzaC", "AAAAAAAAAA")
    with pytest.raises(HpcError) as caught:
        _ssh_ca.load_authority(authority.directory, {"host": secret})
    assert not [line for line in secret.splitlines()[1:-1] if line in str(caught.value)]


def test_the_revocation_list_is_made_again_only_when_it_changes(authority) -> None:
    directory = authority.directory
    (directory / "revoked.krl").write_bytes(b"OLD")
    make_authority(directory)
    assert (directory / "revoked.krl").read_bytes() == b"OLD"
    make_authority(directory, revoked=["serial: 5"])
    assert (directory / "revoked.krl").read_bytes() == b"KRL"


def test_a_run_killed_before_the_list_was_complete_makes_it_again(authority) -> None:
    (authority.directory / "revoked.spec").unlink()
    plan, _authority = _ssh_ca.plan_authority(authority.directory, {}, [], PATTERNS)
    assert plan.make_krl


def test_a_fresh_certificate_needs_no_renewal(authority, request_) -> None:
    certificate = _ssh_ca.sign(request_, authority.user, NOW)
    assert reasons(request_, certificate.text, authority) == []
    assert certificate.principals == ("alice",)
    assert certificate.key_id == "alice@node1"
    assert certificate.critical_options == {"source-address": "10.0.0.0/24,127.0.0.0/8,::1/128"}
    assert certificate.valid_before == NOW + 90 * DAY
    assert 0 <= certificate.serial < 2**63


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"principals": ("alice", "bob")}, "its principals changed"),
        ({"key_id": "alice@node2"}, "its key id changed"),
        ({"extensions": ("permit-pty",)}, "its extensions changed"),
        ({"source_addresses": ("10.1.0.0/16",)}, "its critical options changed"),
        ({"validity_seconds": 40 * DAY}, "its validity changed"),
        ({"kind": "host"}, "its kind changed"),
    ],
)
def test_a_certificate_that_says_something_else_is_renewed(authority, request_, change, reason) -> None:
    text = _ssh_ca.sign(request_, authority.user, NOW).text
    assert reasons(dataclasses.replace(request_, **change), text, authority) == [reason]


def test_a_certificate_for_another_key_or_of_another_authority_is_renewed(authority, request_, tmp_path) -> None:
    text = _ssh_ca.sign(request_, authority.user, NOW).text
    other = dataclasses.replace(request_, public_key=new_key()[1])
    assert reasons(other, text, authority) == ["it is for another key"]
    stranger = make_authority(tmp_path / "other")
    assert reasons(request_, text, stranger) == ["it is of another authority"]


@pytest.mark.parametrize("text", ["", "\n", "rubbish", "ssh-ed25519-cert-v01@openssh.com AAAA"])
def test_a_missing_or_unreadable_certificate_is_made_anew(authority, request_, text) -> None:
    assert len(reasons(request_, text, authority)) == 1


@pytest.mark.parametrize(("age_days", "renewed"), [(0, False), (59, False), (61, True), (100, True), (-1, True)])
def test_a_certificate_is_renewed_before_it_ends(authority, request_, age_days, renewed) -> None:
    text = _ssh_ca.sign(request_, authority.user, NOW).text
    assert bool(reasons(request_, text, authority, now=NOW + age_days * DAY)) is renewed


def test_revoked_certificates_are_recognised_by_serial_and_by_key(authority, request_) -> None:
    certificate = _ssh_ca.sign(request_, authority.user, NOW, serial=77)
    for line in ("serial: 77", "serial: 70-80", f"sha256: {certificate.fingerprint}", f"key: {request_.public_key}"):
        assert len(reasons(request_, certificate.text, authority, revoked=[line])) == 1
    for line in ("serial: 78", "id: alice@node2", f"key: {new_key()[1]}"):
        assert reasons(request_, certificate.text, authority, revoked=[line]) == []


def test_a_revoked_key_id_bars_new_certificates(request_) -> None:
    assert _ssh_ca.is_barred(request_, _ssh_ca.parse_revocations(["id: alice@node1"]))
    assert not _ssh_ca.is_barred(request_, _ssh_ca.parse_revocations(["id: alice@node2", "serial: 1"]))


def test_all_wrong_revocations_are_reported_at_once() -> None:
    lines = ["serial: 0", "serial: 9-3", "id:", "what: ever", "sha256: SHA256:short", "key: ssh-ed25519", "serial: 4"]
    with pytest.raises(InvalidInput) as caught:
        _ssh_ca.parse_revocations(lines)
    message = str(caught.value)
    assert message.startswith("6 problems")
    assert all(f"Entry {number} " in message for number in range(1, 7))


def test_the_list_cannot_revoke_the_clusters_own_authority(authority) -> None:
    with pytest.raises(InvalidInput, match="own user CA"):
        make_authority(authority.directory, revoked=[f"key: {authority.user.public}"])


def test_issued_certificates_are_logged_for_their_owner_only(authority, request_) -> None:
    for serial in (1, 2):
        _ssh_ca.log_issued(authority.directory, [_ssh_ca.sign(request_, authority.user, NOW, serial)], NOW)
    log = authority.directory / "issued.jsonl"
    assert [json.loads(line)["serial"] for line in log.read_text().splitlines()] == [1, 2]
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_node_that_leaves_is_revoked_by_the_serials_of_what_it_was_given(authority) -> None:
    def issue(key_id: str, ends: int) -> str:
        request = _ssh_ca.user_request(new_key()[1], "alice", "x", 90, (), ())
        certificate = _ssh_ca.sign(dataclasses.replace(request, key_id=key_id), authority.user, NOW)
        _ssh_ca.log_issued(authority.directory, [dataclasses.replace(certificate, valid_before=ends)], NOW)
        return f"serial: {certificate.serial}"

    leaving = [issue("host:node2", NOW + DAY), issue("alice@node2", NOW + DAY)]
    for key_id in ("host:node1", "alice@node1", "alice@node22", "host:node", "verify:alice"):
        issue(key_id, NOW + DAY)
    issue("bob@node2", NOW - DAY)
    assert _ssh_ca.retire(authority.directory, [], NOW) == []
    assert _ssh_ca.retire(authority.directory, ["node2"], NOW) == sorted(leaving)


def test_revocations_of_nodes_that_left_stay_until_the_certificates_have_expired(authority) -> None:
    records = [
        {"serial": 1, "key_id": "host:a", "valid_before": _ssh_ca.stamp(NOW + DAY)},
        {"serial": 2, "key_id": "host:b", "valid_before": _ssh_ca.stamp(NOW + 3 * DAY)},
        {"serial": 3, "key_id": "host:c", "valid_before": _ssh_ca.stamp(NOW + 3 * DAY)},
    ]
    (authority.directory / "issued.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (authority.directory / "retired.spec").write_text("serial: 1\nserial: 2\n")
    assert _ssh_ca.retire(authority.directory, ["c"], NOW) == ["serial: 1", "serial: 2", "serial: 3"]
    assert _ssh_ca.retire(authority.directory, ["c"], NOW + 2 * DAY) == ["serial: 2", "serial: 3"]
    assert _ssh_ca.retire(authority.directory, [], NOW + 9 * DAY) == ["serial: 1", "serial: 2"], "no change unasked"


def test_a_credential_stays_for_half_its_life(authority, tmp_path) -> None:
    path = tmp_path / "out" / "alice"
    arguments = (["alice"], "test", 60, authority)
    _ssh_ca.apply_credential(_ssh_ca.plan_credential(path, *arguments, NOW), *arguments, NOW)
    assert {item.stat().st_mode & 0o777 for item in _ssh_ca.credential_paths(path)} == {0o600}
    assert not _ssh_ca.plan_credential(path, *arguments, NOW + 29 * 60)
    assert _ssh_ca.plan_credential(path, *arguments, NOW + 31 * 60)
    assert _ssh_ca.plan_credential(path, ["bob"], "test", 60, authority, NOW)
    assert len(_ssh_ca.plan_credential_removal(path).remove) == 3


@pytest.mark.parametrize(
    ("principals", "minutes", "message"), [(["root"], 5, "'root'"), ([], 5, "at least one"), (["a"], 0, "is 0")]
)
def test_a_credential_for_root_nobody_or_no_time_is_refused(authority, tmp_path, principals, minutes, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        _ssh_ca.plan_credential(tmp_path / "x", principals, "id", minutes, authority, NOW)


def test_wiping_removes_the_authority_and_nothing_else(authority) -> None:
    (authority.directory / "notes.txt").write_text("mine")
    _ssh_ca.apply_wipe(_ssh_ca.plan_wipe(authority.directory))
    assert [path.name for path in authority.directory.iterdir()] == ["notes.txt"]
    (authority.directory / "notes.txt").unlink()
    _ssh_ca.apply_wipe(_ssh_ca.plan_wipe(authority.directory))
    assert not authority.directory.exists()
    assert not _ssh_ca.plan_wipe(authority.directory)
