# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s import removal
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.removal import (
    Litter,
    find_litter,
    find_processes,
    our_links,
    our_mounts,
    own_rules,
    remove_data,
    remove_litter,
    rules_without_ours,
)

DATA = "/var/lib/rancher/k3s"
SHIM = f"{DATA}/data/0123abcd/bin/containerd-shim-runc-v2"
MOUNTS = f"""overlay / overlay rw 0 0
shm /run/k3s/containerd/io.containerd.grpc.v1.cri/sandboxes/1/shm tmpfs rw 0 0
overlay /run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs overlay rw 0 0
tmpfs /var/lib/kubelet/pods/6a7b/volumes/kubernetes.io~projected/with\\040space tmpfs rw 0 0
/dev/sdb1 {DATA}/storage ext4 rw 0 0
tmpfs /run/k3sother tmpfs rw 0 0
nfs:/home /home nfs4 rw 0 0
"""
RULES = """*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:DOCKER - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment "kubernetes health check" -j KUBE-NODEPORTS
-A INPUT -p tcp -m tcp --dport 6443 -m comment --comment "kubernetes: the office" -j ACCEPT
-A FORWARD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A KUBE-FIREWALL -m comment --comment "block" -j DROP
-A DOCKER -d 172.17.0.2/32 -j ACCEPT
COMMIT
"""


def test_only_shims_of_this_k3s_and_what_they_started_are_ended():
    programs = {
        10: SHIM,
        11: "/pause",
        12: "/usr/bin/nginx",
        20: "/usr/bin/containerd-shim-runc-v2",
        30: "/usr/sbin/sshd",
    }
    parents = {10: 1, 11: 10, 12: 11, 20: 1, 21: 20, 30: 1}
    assert find_processes(programs, parents, DATA) == [10, 11, 12]
    assert find_processes(programs, parents, "/data/k3s") == []


def test_mounts_are_undone_from_the_inside_and_a_disk_of_the_site_stays():
    points = our_mounts(MOUNTS)
    assert len(points) == 3
    assert points == sorted(points, key=len, reverse=True)
    assert "/var/lib/kubelet/pods/6a7b/volumes/kubernetes.io~projected/with space" in points
    assert not [point for point in points if "storage" in point or "other" in point or "home" in point]


def test_only_links_of_k3s_go():
    links = [
        {"ifname": "lo"},
        {"ifname": "eth0"},
        {"ifname": "cni0"},
        {"ifname": "veth12ab", "master": "cni0"},
        {"ifname": "veth99", "master": "docker0"},
        {"ifname": "flannel.1"},
        {"ifname": "flannel-wg"},
        {"ifname": "turnkey-route"},
        {"ifname": "docker0"},
    ]
    assert our_links(json.dumps(links)) == ["veth12ab", "cni0", "flannel.1", "flannel-wg", "turnkey-route"]
    assert our_links("") == []


def test_rules_of_others_stay_in_their_order_among_them_the_one_that_lets_ssh_in():
    left = rules_without_ours(RULES)
    assert left.splitlines() == [
        "*filter",
        ":INPUT ACCEPT [0:0]",
        ":DOCKER - [0:0]",
        "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT",
        '-A INPUT -p tcp -m tcp --dport 6443 -m comment --comment "kubernetes: the office" -j ACCEPT',
        "-A DOCKER -d 172.17.0.2/32 -j ACCEPT",
        "COMMIT",
    ]
    assert own_rules(RULES)
    assert not own_rules(left)


def test_volumes_of_pods_stay_unless_they_are_to_be_wiped(tmp_path, monkeypatch):
    monkeypatch.setattr(removal, "DIRECTORIES", (str(tmp_path / "kubelet"),))
    data = tmp_path / "k3s"
    for name in ("kubelet/pods", "k3s/server/db", "k3s/agent", "k3s/storage/pvc-1"):
        (tmp_path / name).mkdir(parents=True)
    (data / "agent/link").symlink_to("/etc/hostname")
    gone, stayed = remove_data(str(data), ("storage",))
    assert stayed == [str(data / "storage")]
    assert {str(tmp_path / "kubelet"), str(data / "server"), str(data / "agent")} == set(gone)
    assert (data / "storage/pvc-1").is_dir()
    assert remove_data(str(data), ("storage",)) == ([], stayed)
    assert remove_data(str(data), ()) == ([str(data / "storage")], [])


def test_a_directory_with_something_mounted_in_it_is_not_emptied(tmp_path, monkeypatch):
    monkeypatch.setattr(removal, "DIRECTORIES", ())
    (tmp_path / "agent/disk").mkdir(parents=True)
    (tmp_path / "agent/disk/precious").write_text("x")
    monkeypatch.setattr(removal, "mount_points", lambda _text: [str(tmp_path / "agent/disk")])
    assert remove_data(str(tmp_path), ()) == ([], [str(tmp_path / "agent")])
    assert (tmp_path / "agent/disk/precious").exists()


class Host:
    """Programs of a host: what they print, how calls begin that fail, and what was called."""

    def __init__(self, printed=None, failing=()):
        self.printed, self.failing, self.calls = printed or {}, failing, []

    def run(self, argv, stdin):
        self.calls.append((" ".join(argv), stdin))
        failed = any(" ".join(argv).startswith(words) for words in self.failing)
        return (1, "", "busy\n") if failed else (0, self.printed.get(argv[0], ""), "")

    def told(self, word):
        return [call for call in self.calls if word in call[0]]


def test_firewalls_are_restored_without_rules_of_k3s_and_only_where_it_has_some():
    host = Host({"iptables-save": RULES, "ip6tables-save": "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n"})
    assert find_litter(host.run, DATA).chains
    remove_litter(host.run, Litter(chains=True), DATA)
    assert host.told("restore") == [("iptables-restore", rules_without_ours(RULES))]
    assert not find_litter(Host({"iptables-save": rules_without_ours(RULES)}).run, DATA).chains


def test_where_the_host_has_no_program_for_its_firewall_that_of_k3s_is_used(tmp_path):
    own = tmp_path / "data/0123abcd/bin/aux"
    own.mkdir(parents=True)
    host = Host({f"{own}/iptables-save": RULES}, failing=["iptables-save", "ip6tables-save"])
    remove_litter(host.run, Litter(chains=True), str(tmp_path))
    assert host.told("restore") == [(f"{own}/iptables-restore", rules_without_ours(RULES))]


def test_a_busy_mount_is_taken_off_lazily_and_what_stays_is_told():
    host = Host(failing=["umount /run"])
    remove_litter(host.run, Litter(mounts=("/run/k3s/a",)), DATA)
    assert [call[0] for call in host.calls] == ["umount /run/k3s/a", "umount --lazy /run/k3s/a"]
    stuck = Host({"iptables-save": RULES}, failing=["umount", "iptables-restore"])
    with pytest.raises(HpcError) as error:
        remove_litter(stuck.run, Litter(mounts=("/run/k3s/a", "/run/netns/cni-1"), links=("gone0",), chains=True), DATA)
    assert "umount --lazy /run/k3s/a: busy; iptables-restore: busy" in str(error.value)
    assert not stuck.told("gone0"), "a link that went with its other end is not removed again"
    assert not stuck.told("cni-1"), "the mount of a namespace goes with that"
