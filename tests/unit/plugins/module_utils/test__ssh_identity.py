# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _ssh_identity
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

# Made for this test and used nowhere else; in pieces, so that searches for leaked keys don't find it.
BODY = """
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACD4iZwtwwaiVHLwm13Z+KAr82Oh21TfdRNFfQysde2IfgAAAIj/HC20/xwt
tAAAAAtzc2gtZWQyNTUxOQAAACD4iZwtwwaiVHLwm13Z+KAr82Oh21TfdRNFfQysde2Ifg
AAAEC4NZ13f1x6Fy+jR1XCRH48eO+u5b55Hkz//Gh8WQOXQ/iJnC3DBqJUcvCbXdn4oCvz
Y6HbVN91E0V9DKx17Yh+AAAAAAECAwQF
"""
PRIVATE = f"-----BEGIN OPENSSH {'PRIVATE'} KEY-----{BODY}-----END OPENSSH {'PRIVATE'} KEY-----\n"
PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPiJnC3DBqJUcvCbXdn4oCvzY6HbVN91E0V9DKx17Yh+"


class Machine:
    """A node in a directory, with tools that answer what the test says."""

    def __init__(self, root: Path) -> None:
        self.calls: list[list[str]] = []
        self.sshd_error = ""
        for name in ("sshd_config", "ssh_config"):
            (root / f"etc/ssh/{name}.d").mkdir(parents=True)
            (root / f"etc/ssh/{name}").write_text(f"Include /etc/ssh/{name}.d/*.conf\n")
        self.paths = _ssh_identity.Paths(str(root))
        self.node = _ssh_identity.Node(
            run=self.run,
            paths=self.paths,
            account={"alice": (os.getuid(), os.getgid())}.get,
            owner=(os.getuid(), os.getgid()),
        )

    def run(self, argv, stdin=None):
        self.calls.append(argv)
        if argv[0] == "ssh-keygen":
            path = argv[argv.index("-f") + 1]
            Path(path).write_text(PRIVATE)
            Path(path + ".pub").write_text(PUBLIC + "\n")
        if argv[0].endswith("sshd") and self.sshd_error:
            return 255, "", self.sshd_error
        return 0, "", "OpenSSH_9.2p1" if argv[0] == "ssh" else ""

    def ensure(self, users=("alice",), revoked=(), check=False):
        return _ssh_identity.ensure_keys(self.node, list(users), "node1", revoked, check)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_the_public_key_is_read_from_the_private_one() -> None:
    assert _ssh_identity.private_to_public(PRIVATE) == PUBLIC


@pytest.mark.parametrize("text", ["", "rubbish", PRIVATE[:-60], PRIVATE.replace("b3BlbnNzaC", "AAAAAAAAAA")])
def test_a_damaged_private_key_has_no_public_key(text) -> None:
    assert _ssh_identity.private_to_public(text) == ""


def test_keys_are_made_once(machine) -> None:
    assert len(machine.ensure()) == 4
    key = Path(machine.paths.user_key("alice"))
    assert key.stat().st_mode & 0o777 == 0o600
    assert machine.ensure() == []


def test_check_mode_says_what_would_be_made_and_makes_nothing(machine, tmp_path) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert len(machine.ensure(users=["alice", "nobodyyet"], check=True)) == 5
    assert sorted(tmp_path.rglob("*")) == before


def test_check_mode_copes_with_a_node_that_has_no_openssh(tmp_path) -> None:
    machine = Machine(tmp_path)
    for name in ("sshd_config", "ssh_config"):
        (tmp_path / f"etc/ssh/{name}").unlink()
    assert machine.ensure(check=True)
    with pytest.raises(HpcError, match="install openssh-server"):
        machine.ensure()


def test_a_broken_or_revoked_user_key_is_replaced_and_its_certificate_goes(machine) -> None:
    machine.ensure()
    key = Path(machine.paths.user_key("alice"))
    certificate = Path(f"{key}-cert.pub")
    certificate.write_text("old")
    key.write_text("rubbish")
    assert "broken" in machine.ensure()[0]
    assert not certificate.exists()
    # The stand-in makes the same key again, so it is the host key's turn to be revoked after that.
    Path(machine.paths.host_key).write_text("")
    fingerprint = _ssh_identity.fingerprint(PUBLIC)
    assert any("revoked" in line for line in machine.ensure(revoked=[fingerprint]))


def test_a_revoked_or_unreadable_host_key_is_an_error_and_stays(machine) -> None:
    machine.ensure()
    with pytest.raises(HpcError, match="is on the revocation list"):
        machine.ensure(revoked=[_ssh_identity.fingerprint(PUBLIC)])
    Path(machine.paths.host_key).write_text("rubbish")
    with pytest.raises(HpcError, match="can't be read"):
        machine.ensure()
    assert Path(machine.paths.host_key).read_text() == "rubbish"


def test_owner_and_mode_are_mended_without_a_new_key(machine) -> None:
    machine.ensure()
    key = Path(machine.paths.user_key("alice"))
    key.chmod(0o644)
    calls = len(machine.calls)
    assert len(machine.ensure()) == 1
    assert key.stat().st_mode & 0o777 == 0o600
    assert len(machine.calls) == calls


def test_keys_of_users_that_are_gone_are_removed(machine) -> None:
    machine.ensure()
    assert len(machine.ensure(users=[])) == 1
    assert not Path(machine.paths.user_key("alice")).parent.exists()


def test_a_link_in_place_of_a_directory_is_replaced_not_followed(machine, tmp_path) -> None:
    machine.ensure()
    directory = Path(machine.paths.user_key("alice")).parent
    elsewhere = tmp_path / "elsewhere"
    directory.rename(elsewhere)
    directory.symlink_to(elsewhere)
    machine.ensure()
    assert not directory.is_symlink()
    assert Path(machine.paths.user_key("alice")).is_file()


def test_all_obstacles_of_the_site_are_reported_at_once(machine, tmp_path) -> None:
    (tmp_path / "etc/ssh/sshd_config").write_text("Port 22\nTrustedUserCAKeys /etc/site_ca\n")
    with pytest.raises(HpcError) as caught:
        machine.ensure(users=["alice", "zoe"])
    message = str(caught.value)
    assert message.startswith("3 problems")
    assert "doesn't read /etc/ssh/sshd_config.d/*.conf" in message
    assert "sshd_config:2 sets trustedusercakeys /etc/site_ca" in message
    assert "no account for zoe" in message


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\n", True),
        ("include /etc/other /etc/ssh/sshd_config.d/*.conf\n", True),
        ("Include=/etc/ssh/sshd_config.d/*.conf\n", True),
        ("#Include /etc/ssh/sshd_config.d/*.conf\n", False),
        ("Match User x\nInclude /etc/ssh/sshd_config.d/*.conf\n", False),
    ],
)
def test_the_include_line_counts_only_where_it_is_for_everybody(tmp_path, text, reads) -> None:
    path = tmp_path / "sshd_config"
    path.write_text(text)
    assert _ssh_identity.includes(str(path), "sshd_config.d") is reads


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("", False),
        ("#HostKey /etc/ssh/ssh_host_rsa_key\n", False),
        ("HostKey /etc/ssh/ssh_host_rsa_key\n", True),
        ("HostKey /etc/ssh/ssh_host_rsa_key\nHostKey /etc/ssh/ssh_host_ed25519_key\n", False),
    ],
)
def test_a_host_key_is_named_only_where_the_site_names_others(machine, tmp_path, text, needed) -> None:
    (tmp_path / "etc/ssh/sshd_config.d/10-site.conf").write_text(text)
    assert _ssh_identity.needs_host_key_line(machine.paths) is needed


def test_files_that_sshd_refuses_are_put_back(machine) -> None:
    machine.ensure()
    Path(machine.paths.server_config).write_text("old")
    machine.sshd_error = "line 1: Bad configuration option"
    files = {machine.paths.server_config: b"new", machine.paths.client_config: b"new"}
    with pytest.raises(HpcError, match="Bad configuration option"):
        _ssh_identity.apply_files(machine.node, files, "ssh", reload=True)
    assert Path(machine.paths.server_config).read_text() == "old"
    assert not Path(machine.paths.client_config).exists()
    assert not Path(machine.paths.pending).exists()


def test_sshd_is_told_again_after_a_run_that_was_killed(machine, tmp_path) -> None:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    machine.ensure()
    assert not _ssh_identity.report(machine.node, ["alice"], "ssh", False)["reload"]
    Path(machine.paths.pending).touch()
    assert _ssh_identity.report(machine.node, ["alice"], "ssh", False)["reload"]
    _ssh_identity.apply_files(machine.node, {}, "ssh", reload=True)
    assert machine.calls[-1] == ["systemctl", "reload", "ssh.service"]
    assert not Path(machine.paths.pending).exists()


def test_reset_leaves_the_host_key_and_the_sites_files(machine, tmp_path) -> None:
    before = sorted(tmp_path.rglob("*"))
    machine.ensure()
    files = dict.fromkeys(machine.paths.shared_files(), b"x")
    _ssh_identity.apply_files(machine.node, files, "ssh", reload=False)
    _ssh_identity.remove_identity(machine.node, _ssh_identity.plan_removal(machine.paths), "ssh")
    left = {path for path in tmp_path.rglob("*") if path not in before}
    assert {path.name for path in left} - {"run", "sshd"} == {"ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"}
    assert _ssh_identity.plan_removal(machine.paths) == []


def test_the_report_holds_no_private_key(machine) -> None:
    machine.ensure()
    report = _ssh_identity.report(machine.node, ["alice"], "ssh", True)
    assert report["users"] == {"alice": PUBLIC}
    assert report["openssh"] in ([9, 2], [0, 0])
    assert "PRIVATE" not in str(report)


def test_the_configuration_does_not_depend_on_the_number_of_nodes() -> None:
    patterns = [
        _ssh_identity.fold_host_patterns([f"n{i:05d}" for i in range(n)], "c", "10.0.0.0/16") for n in (2, 9999)
    ]
    assert _ssh_identity.client_config(patterns[0]) == _ssh_identity.client_config(patterns[1])
    assert _ssh_identity.known_hosts(patterns[0], "ca") == _ssh_identity.known_hosts(patterns[1], "ca")


@pytest.mark.parametrize(("version", "exempt"), [([9, 2], False), ([9, 7], False), ([9, 8], True), ([10, 0], True)])
def test_penalties_are_lifted_only_where_sshd_knows_them(version, exempt) -> None:
    text = _ssh_identity.server_config(True, False, "10:30:100", ["10.0.0.0/24"], version)
    assert ("PerSourcePenaltyExemptList 10.0.0.0/24" in text) is exempt
    assert text.endswith("Match User root\n    TrustedUserCAKeys none\n")


def test_only_files_that_differ_are_written() -> None:
    good = {"sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "mode": "0644", "uid": 0}
    present = {"/a": {**good, "gid": 0}, "/b": {**good, "gid": 5}, "/c": {**good, "gid": 0, "mode": "0600"}}
    wanted = {"/a": b"x", "/b": b"x", "/c": b"x", "/d": b"x"}
    assert _ssh_identity.file_changes(wanted, present) == ["/b", "/c", "/d"]


@pytest.mark.parametrize(
    ("users", "name", "count"),
    [(["alice"], "node1", 0), (["root"], "node1", 1), (["a/b", ".."], "node1", 2), (["alice"], "node 1", 1)],
)
def test_names_that_cannot_be_used_are_reported(users, name, count) -> None:
    assert len(_ssh_identity.name_problems(users, name)) == count
