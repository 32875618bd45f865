# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

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

    found = _host_survey.survey(run, ["/", "/", "/does/not/exist"], [])
    assert calls == [["ip", "-json", "address"]]
    assert found["interfaces"] == interfaces
    assert found["cores"] >= 1
    assert [disk["paths"] for disk in found["disks"]] == [["/", "/"]]
    assert {"os", "python", "memory_mb", "host_name", "user", "accounts", "seconds", "clock"} <= set(found)
