# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from ansible_collections.turnkey.hpc.plugins.action import ssh_identity
from ansible_collections.turnkey.hpc.plugins.module_utils import _ssh_ca
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._ssh_identity import Paths
from ansible_collections.turnkey.hpc.plugins.modules import ssh_identity as module
from cryptography.hazmat.primitives.asymmetric import ed25519

NOW = 1_800_000_000
PATHS = Paths()


def public_key() -> str:
    return _ssh_ca.public_line(ed25519.Ed25519PrivateKey.generate().public_key())


def ca_key(kind: str) -> _ssh_ca.CaKey:
    private = ed25519.Ed25519PrivateKey.generate()
    return _ssh_ca.CaKey(kind, private, _ssh_ca.public_line(private.public_key()))


AUTHORITY = _ssh_ca.Authority(Path("/nowhere"), ca_key("host"), ca_key("user"))
OPTIONS = {
    "name": "node1",
    "host_principals": ["node1", "10.0.0.11"],
    "host_patterns": ["node?"],
    "users": ["alice", "bob"],
    "authority_dir": "/nowhere",
    "source_networks": ["10.0.0.0/24"],
    "user_extensions": ["permit-pty"],
    "host_validity_days": 365,
    "user_validity_days": 90,
    "renew_before_days": 30,
    "max_startups": "100:30:500",
}


def bare_report(**changes):
    report = {
        "host_key": public_key(),
        "users": {"alice": public_key(), "bob": public_key()},
        "files": {},
        "host_key_line": False,
        "openssh": [9, 2],
        "reload": False,
    }
    return {**report, **changes}


def plan_for(report, authority=AUTHORITY, revoked=(), krl=b"KRL", now=NOW, **options):
    entries = _ssh_ca.parse_revocations(revoked)
    return ssh_identity.make_plan({**OPTIONS, **options}, report, authority, entries, krl, now)


def written(report, plan):
    """Return the report of a node after the plan was carried out."""
    files = dict(report["files"])
    for path, data in plan.files.items():
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "mode": "0644", "uid": 0, "gid": 0}
        files[path] = {**entry, "text": data.decode()} if path.endswith("-cert.pub") else entry
    return {**report, "files": files}


def test_a_bare_node_gets_everything_and_a_second_look_finds_nothing() -> None:
    report = bare_report()
    plan = plan_for(report)
    assert len(plan.files) == 8
    assert plan.reload
    assert [entry["key_id"] for entry in plan.certificates] == ["host:node1", "alice@node1", "bob@node1"]
    assert not plan_for(written(report, plan))


def test_the_configuration_is_written_after_what_it_names() -> None:
    assert list(plan_for(bare_report()).files)[-2:] == [PATHS.server_config, PATHS.client_config]


def test_a_node_without_keys_or_authority_is_planned_for_check_mode() -> None:
    plan = plan_for(bare_report(host_key="", users={}), authority=None, krl=None)
    assert plan
    assert len(plan.would) == 5
    assert plan.signed == []
    assert all(entry["serial"] == 0 for entry in plan.certificates)


def test_a_new_user_costs_one_certificate_and_no_reload() -> None:
    report = bare_report()
    report = written(report, plan_for(report, users=["alice"]))
    plan = plan_for(report)
    assert [entry["key_id"] for entry in plan.certificates] == ["bob@node1"]
    assert list(plan.files) == [PATHS.user_key("bob") + "-cert.pub"]
    assert not plan.reload


def test_certificates_are_renewed_before_they_end() -> None:
    report = bare_report()
    report = written(report, plan_for(report))
    plan = plan_for(report, now=NOW + 70 * 86400)
    assert [entry["key_id"] for entry in plan.certificates] == ["alice@node1", "bob@node1"]


def test_a_revoked_serial_is_replaced_and_a_revoked_id_is_not() -> None:
    report = bare_report()
    first = plan_for(report)
    report = written(report, first)
    serial = next(entry["serial"] for entry in first.certificates if entry["key_id"] == "alice@node1")
    assert [entry["key_id"] for entry in plan_for(report, revoked=[f"serial: {serial}"]).certificates] == [
        "alice@node1"
    ]
    barred = plan_for(report, revoked=["id: alice@node1"])
    assert barred.barred == ["alice@node1"]
    assert not barred


def test_a_barred_node_without_a_certificate_gets_none() -> None:
    plan = plan_for(bare_report(), revoked=["id: host:node1"])
    assert PATHS.host_certificate not in plan.files
    assert b"HostCertificate" not in plan.files[PATHS.server_config]


def test_a_service_that_missed_its_reload_is_told() -> None:
    report = bare_report()
    report = written(report, plan_for(report))
    plan = plan_for({**report, "reload": True})
    assert plan
    assert plan.files == {}


def test_all_unusable_options_are_reported_at_once() -> None:
    options = {**OPTIONS, "users": ["root"], "host_patterns": [], "user_validity_days": 30}
    with pytest.raises(InvalidInput) as caught:
        ssh_identity.check_options(options)
    assert str(caught.value).startswith("3 problems")


def test_the_diff_shows_certificates_in_words_and_no_keys() -> None:
    report = bare_report()
    diff = ssh_identity.diff_of(plan_for(report), report, "ssh")
    text = str(diff)
    assert "user certificate alice@node1: principals alice" in text
    assert "reload or start ssh.service" in text
    assert "AAAA" not in "".join(
        entry.get("after", "") for entry in diff if "cert.pub" in entry.get("after_header", "")
    )


def test_the_action_takes_the_options_that_the_module_documents(monkeypatch) -> None:
    seen = {}

    class Stop(Exception):
        pass

    def capture(argument_spec, **_rest):
        seen.update(argument_spec)
        raise Stop

    monkeypatch.setattr(module, "AnsibleModule", capture)
    with pytest.raises(Stop):
        module.main()
    internal = {"phase", "files", "revoked_keys", "reload"}
    assert {name: spec for name, spec in seen.items() if name not in internal} == ssh_identity.OPTIONS
