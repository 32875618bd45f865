# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import itertools
import json
import subprocess
from pathlib import Path

import pytest

NODES = ("head", "login1", "node1", "node2", "node3")


def sign(authority: Path, key: Path, *options: str) -> Path:
    """Sign ``key`` with the user CA in ``authority``, as its owner would by hand."""
    argv = ["ssh-keygen", "-q", "-s", str(authority / "user_ca"), "-I", "test", *options, f"{key}.pub"]
    subprocess.run(argv, check=True)
    return key


def refused(attempt: subprocess.CompletedProcess) -> bool:
    return attempt.returncode == 255 and "Permission denied (publickey" in attempt.stderr


def test_any_user_reaches_any_node_from_any_node_without_a_question(site):
    for source in NODES:
        script = "; ".join(f"ssh -o BatchMode=yes {target} hostname" for target in NODES)
        for user in ("alice", "bob"):
            names = site.root(source).check_output(f"su - {user} -c '{script}'").split()
            assert names == list(NODES), (source, user)


def test_a_user_with_a_certificate_of_the_cluster_logs_in_from_outside(site, key):
    mine = sign(site.authority, key("alice"), "-n", "alice", "-V", "+5m")
    attempt = site.login("alice", "node2", mine)
    assert attempt.stdout.split() == ["alice", "node2"], attempt.stderr


@pytest.mark.parametrize("node", ["head", "node2"])
def test_a_key_that_nobody_signed_is_refused(site, key, node):
    assert refused(site.login("alice", node, key("stranger")))


def test_a_certificate_of_another_clusters_authority_is_refused(site, key, tmp_path):
    key("user_ca")
    foreign = sign(tmp_path, key("alice"), "-n", "alice", "-V", "+5m")
    assert refused(site.login("alice", "node1", foreign))


def test_an_expired_certificate_is_refused(site, key):
    stale = sign(site.authority, key("alice"), "-n", "alice", "-V", "-2d:-1d")
    assert refused(site.login("alice", "node1", stale))


def test_a_certificate_of_one_user_does_not_log_in_another_nor_root(site, key):
    bobs = sign(site.authority, key("bob"), "-n", "bob", "-V", "+5m")
    assert site.login("bob", "node1", bobs).stdout.split() == ["bob", "node1"]
    assert refused(site.login("alice", "node1", bobs))


def test_a_revoked_certificate_is_refused_and_its_neighbours_are_not(site, key):
    lost = sign(site.authority, key("lost"), "-n", "alice", "-V", "+5m", "-z", "4711")
    other = sign(site.authority, key("other"), "-n", "alice", "-V", "+5m", "-z", "4712")
    assert site.login("alice", "node3", lost).returncode == 0
    revoked = json.dumps({"ssh_mesh_revoked": ["serial: 4711"]})
    site.play("nodes", "--tags", "ssh_mesh", "-e", revoked).succeeded()
    assert refused(site.login("alice", "node3", lost))
    assert site.login("alice", "node3", other).returncode == 0
    site.play("nodes", "--tags", "ssh_mesh").succeeded()
    assert site.login("alice", "node3", lost).returncode == 0, "taken off the list again"


def test_a_host_whose_key_the_cluster_did_not_sign_is_not_talked_to(site):
    node = site.root("node3")
    node.check_output("install -d -m 0755 /run/sshd && ssh-keygen -q -t ed25519 -N '' -f /run/impostor </dev/null")
    node.check_output("/usr/sbin/sshd -f /dev/null -p 2022 -h /run/impostor -o PidFile=/run/impostor.pid")
    try:
        attempt = site.root("node1").run("su - alice -c 'ssh -o BatchMode=yes -p 2022 node3 hostname; echo code $?'")
        assert attempt.stdout.split() == ["code", "255"]
        assert "Host key verification failed" in attempt.stderr
    finally:
        node.check_output("kill $(cat /run/impostor.pid); rm /run/impostor /run/impostor.pub")


def test_no_private_key_is_on_two_nodes(site):
    command = "grep -rlZ 'PRIVATE KEY' /etc /home /root /shared /var/lib | xargs -0 sha256sum"
    sums = {node: {line.split()[0] for line in site.root(node).run(command).stdout.splitlines()} for node in NODES}
    assert all(sums.values())
    for one, two in itertools.combinations(NODES, 2):
        assert not sums[one] & sums[two]
