# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _host_survey

BOOKWORM = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
ID=debian
# a comment
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (BOOKWORM, {"name": "Debian", "version": "12"}),
        ("ID=debian\nPRETTY_NAME='sid'\n", {"name": "Debian", "version": ""}),
        ('ID="rocky"\nVERSION_ID="9.3"\n', {"name": "Rocky", "version": "9.3"}),
        ('ID=x\nVERSION_ID="unclosed\n', {"name": "X", "version": '"unclosed'}),
        ("", {"name": "", "version": ""}),
    ],
)
def test_distribution_and_release_are_read_from_os_release(text, expected):
    assert _host_survey.parse_os_release(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("MemTotal:        4028412 kB\nMemFree:  1 kB\n", 3933), ("MemFree: 1 kB\n", None), ("", None)],
)
def test_memory_is_read_in_mb(text, expected):
    assert _host_survey.parse_memory_mb(text) == expected


def test_ipv4_addresses_are_read_by_interface():
    text = """[{"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8},
      {"family":"inet6","local":"::1","prefixlen":128}]},
      {"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.2","prefixlen":24},
      {"family":"inet","local":"10.0.0.3","prefixlen":24}]},
      {"ifname":"eth1"}, {}]"""
    assert _host_survey.parse_interfaces(text) == {
        "lo": ["127.0.0.1/8"],
        "eth0": ["10.0.0.2/24", "10.0.0.3/24"],
        "eth1": [],
    }


def test_accounts_tell_who_holds_names_and_ids():
    users = {"alice": 2001, "mallory": 2002}

    def find_user(name):
        return SimpleNamespace(pw_uid=users[name])

    def find_uid(uid):
        return SimpleNamespace(pw_name={number: name for name, number in users.items()}[uid])

    def find_nothing(key):
        raise KeyError(key)

    wanted = [{"name": "alice", "uid": 2001, "gid": 2001}, {"name": "bob", "uid": 2002, "gid": 50}]
    alice, bob = _host_survey.read_accounts(wanted, find_user, find_uid, find_nothing, find_nothing)
    assert (alice["uid_of_name"], alice["name_of_uid"], alice["group_of_gid"]) == (2001, "alice", None)
    assert (bob["uid_of_name"], bob["name_of_uid"], bob["gid"]) == (None, "mallory", 50)


@pytest.mark.parametrize(
    ("answer", "interfaces"),
    [
        ((0, '[{"ifname":"lo"}]', ""), {"lo": []}),
        ((127, "", "not found"), None),
        ((0, "Option -json is unknown", ""), None),
    ],
)
def test_a_survey_of_this_machine_is_complete(answer, interfaces):
    calls = []

    def run(argv):
        calls.append(argv)
        return answer

    found = _host_survey.survey(run, _host_survey.Questions(paths=["/", "/", "/does/not/exist"]))
    assert calls == [["ip", "-json", "address"]]
    assert found["interfaces"] == interfaces
    assert found["cores"] >= 1
    assert [disk["paths"] for disk in found["disks"]] == [["/", "/"]]
    assert {"os", "python", "memory_mb", "host_name", "user", "accounts", "seconds", "clock"} <= set(found)
    assert (found["outcomes"], found["resolved"], found["sources"], found["kernel"]) == ([], {}, [], None)


NET_TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0801 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1
   1: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1
   2: 0200630A:0801 0300630A:8123 01 00000000:00000000 00:00000000 00000000     0        0 4713 1
"""
NET_UDP6 = """  sl  local_address remote_address st tx_queue tr uid timeout inode
   1: 00000000000000000000000000000000:007B 00000000000000000000000000000000:0000 07 0:0 00:0 0   106   0 4714 2
"""


@pytest.mark.parametrize(
    ("protocol", "text", "ports", "expected"),
    [
        ("tcp", NET_TCP, [2049], [("tcp", 2049, "0.0.0.0", 0, 4711)]),
        ("tcp", NET_TCP, [22, 80], [("tcp", 22, "127.0.0.1", 0, 4712)]),
        ("udp", NET_UDP6, [123], [("udp", 123, "::", 106, 4714)]),
        ("tcp", NET_UDP6, [123], []),
        ("tcp", "", [22], []),
    ],
)
def test_only_sockets_that_wait_on_the_ports_are_listeners(protocol, text, ports, expected):
    found = _host_survey.parse_listeners(protocol, text, ports)
    assert [(each.protocol, each.port, each.address, each.uid, each.inode) for each in found] == expected


HOSTS = """127.0.0.1 localhost
::1 localhost
192.0.2.7 node1 node1.lab  # by hand
# BEGIN turnkey.hpc hosts
10.0.0.1 head.demo.internal head
# END turnkey.hpc hosts
10.0.0.9
"""


def test_lines_of_the_hosts_file_are_told_apart_by_who_wrote_them():
    outside, inside = _host_survey.parse_hosts_file(HOSTS, "turnkey.hpc hosts")
    assert outside == [
        {"address": "127.0.0.1", "names": ["localhost"]},
        {"address": "192.0.2.7", "names": ["node1", "node1.lab"]},
    ]
    assert inside == ["head.demo.internal", "head"]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["gcc"], []),
        (["chrony", "gcc"], ["chrony"]),
        (["nfs-kernel-server|nfs-ganesha"], []),
        (["mawk|gawk"], ["mawk|gawk"]),
        (["rsync"], ["rsync"]),
    ],
)
def test_packages_that_are_not_installed_are_missing_unless_an_alternative_is_there(names, missing):
    text = "gcc installed\nnfs-ganesha installed\nrsync config-files\ngawk not-installed\n"
    assert _host_survey.parse_packages(text, names) == missing


def test_the_program_that_holds_a_socket_is_found(tmp_path):
    for pid, inode, name in (("12", 4711, "python3"), ("13", 4712, "sshd")):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "comm").write_text(f"{name}\n")
        (tmp_path / pid / "fd/3").symlink_to(f"socket:[{inode}]")
    assert _host_survey.find_programs([4711, 9999], tmp_path) == {4711: "python3"}
    assert _host_survey.find_programs([], tmp_path) == {}


def test_a_survey_answers_its_questions_about_this_machine():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        questions = _host_survey.Questions(
            ports=[{"port": port, "protocol": "tcp"}],
            targets=[{"address": "127.0.0.1", "port": port, "protocol": "tcp"}],
            names=["localhost"],
        )
        found = _host_survey.survey(lambda argv: (127, "", ""), questions)
    assert [(each["port"], each["address"]) for each in found["listeners"]] == [(port, "127.0.0.1")]
    assert found["outcomes"] == [{"state": "open", "detail": ""}]
    assert found["resolved"] == {"localhost": ["127.0.0.1"]}
