# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _validate, _variable_check

SPECS = _variable_check.Specs.from_documents(
    {
        "cluster": {
            "argument_specs": {
                "site": {
                    "options": {
                        "cluster_name": {"type": "str", "required": True},
                        "cluster_network": {"type": "str", "required": True},
                        "cluster_shared_dir": {"type": "path"},
                        "cluster_shared_dir_source": {"type": "str", "choices": ["nfs", "provided"]},
                        "cluster_extra_variables": {"type": "list", "elements": "str"},
                        "cluster_users": {
                            "type": "list",
                            "elements": "dict",
                            "options": {
                                "name": {"required": True},
                                "uid": {"type": "int", "required": True},
                                "groups": {"type": "list"},
                                "state": {},
                            },
                        },
                    }
                }
            }
        },
        "slurm": {"argument_specs": {"main": {"options": {"slurm_ports": {"type": "list", "elements": "int"}}}}},
    }
)
RUNS = {"all": ["slurm"]}
HOSTS = {"head": "10.20.0.10", "node1": "10.20.0.11"}
GROUPS = {"all": ["head", "node1"], "controller": ["head"], "nfs_server": ["head"], "compute": ["node1"]}


def inventory(hosts=None, groups=None, extra=(), **settings):
    """Return a sound inventory, but for what is given. A setting of ``None`` is left out."""
    hosts = HOSTS if hosts is None else hosts
    values = {"cluster_name": "lab", "cluster_network": "10.20.0.0/24", **settings}
    return _validate.Inventory(
        [
            _validate.Setting(name, value, list(hosts), "all.yml:1")
            for name, value in values.items()
            if value is not None
        ],
        hosts,
        {"all": list(hosts), **(GROUPS if groups is None else groups)},
        extra,
    )


def find(checked):
    return _validate.find_problems(checked, SPECS, RUNS)


def texts(problems):
    return [f"{problem.text} -> {problem.remedy}" for problem in problems]


def test_a_sound_inventory_has_no_problems():
    users = [{"name": "alice", "uid": 2001}, {"name": "old", "uid": 2001, "state": "absent"}]
    sound = inventory(cluster_users=users, cluster_shared_dir="/shared", cluster_shared_dir_source="nfs")
    assert find(sound) == []


@pytest.mark.parametrize("name", ["a", "lab", "lab-2", "a" * 20])
def test_a_good_cluster_name_passes(name):
    assert _validate.check_cluster_name(name) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "has 0 characters"),
        ("My Lab", "has the characters ' ' 'L' 'M'"),
        ("lab_1", "has the character '_'"),
        ("läb", "has the character 'ä'"),
        ("lab;reboot", "has the character ';'"),
        ("2lab", "begins with '2'"),
        ("-lab", "begins with '-'"),
        ("lab-", "ends with '-'"),
        ("a" * 21, "has 21 characters"),
        (12, "12 is no text"),
    ],
)
def test_an_odd_cluster_name_is_refused_with_the_reason(name, reason):
    (problem,) = _validate.check_cluster_name(name)
    assert problem.item == "cluster_name"
    assert reason in problem.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10.20.0.0/24", None),
        ("192.168.7.0/25", None),
        ("100.64.0.0/16", None),
        ("10.20.0.0", "is no network with a prefix length"),
        (10, "is no network with a prefix length"),
        ("10.20.0.300/24", "is no IPv4 network"),
        ("fd00::/64", "is no IPv4 network"),
        ("10.20.0.5/24", "has host bits set"),
        ("8.8.8.0/24", "is no private network"),
        ("10.0.0.0/7", "is no private network"),
        ("10.20.0.0/31", "has no room for hosts"),
    ],
)
def test_the_network_is_a_private_ipv4_network(value, text):
    _network, problems = _validate.check_network(value)
    assert [text in problem.text for problem in problems] == ([True] if text else [])


@pytest.mark.parametrize(
    ("hosts", "item", "text"),
    [
        ({"n1": ""}, "host n1", "has no cluster_address"),
        ({"n1": "", "n2": "", "n3": ""}, "host n[1-3]", "has no cluster_address"),
        ({"n1": "n1.example.com"}, "host n1", "'n1.example.com' is no IPv4 address"),
        ({"n1": "10.21.0.1"}, "host n1", "10.21.0.1 is outside of cluster_network 10.20.0.0/24"),
        ({"n1": "10.20.0.0"}, "host n1", "the network's own address"),
        ({"n1": "10.20.0.255"}, "host n1", "the broadcast address"),
        ({"n1": "10.20.0.1", "n2": "10.20.0.1"}, "host n[1-2]", "the same address 10.20.0.1"),
        ({"N1": "10.20.0.1", "n1": "10.20.0.2"}, "host N1", "differs from n1 in case only"),
        ({"n_1": "10.20.0.1"}, "host n_1", "has the character '_'"),
        ({"n1.lab": "10.20.0.1"}, "host n1.lab", "has the character '.'"),
        ({"-n": "10.20.0.1"}, "host -n", "begins or ends with '-'"),
        ({"12": "10.20.0.1"}, "host 12", "digits only"),
        ({"n" * 64: "10.20.0.1"}, "host " + "n" * 64, "has 64 characters"),
    ],
)
def test_names_and_addresses_of_hosts_are_checked_together(hosts, item, text):
    network, _problems = _validate.check_network("10.20.0.0/24")
    (problem,) = _validate.check_hosts(hosts, network)
    assert problem.item == item
    assert text in problem.text


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([], []),
        ([{"name": "Alice", "uid": 2001}], ["cluster_users[Alice]: 'Alice' is no legal login name"]),
        ([{"name": 7, "uid": 2001}], ["cluster_users[1]: 7 is no legal login name"]),
        ([{"name": "alice", "uid": 999}], ["cluster_users[alice]: uid 999 is not one of 1000 to 59999"]),
        ([{"name": "alice", "uid": 60000}], ["cluster_users[alice]: uid 60000 is not one of"]),
        ([{"name": "alice", "uid": "2001"}], []),
        (
            [{"name": "alice", "uid": 2001}, {"name": "bob", "uid": 2001}],
            ["cluster_users[alice]: uid 2001 belongs to alice and bob"],
        ),
        (
            [{"name": "alice", "uid": 2001}, {"name": "alice", "uid": 2002}],
            ["cluster_users[alice]: the name 'alice' is there more than once"],
        ),
        # The argument spec judges these.
        ("alice", []),
        (["alice"], []),
        ([{"uid": 2001}, {"name": "alice"}, {"name": "bob", "uid": "abc"}, {"name": "carol", "uid": True}], []),
    ],
)
def test_accounts_have_legal_and_unique_names_and_ids(users, expected):
    found = texts(_validate.check_users(users))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected))


@pytest.mark.parametrize("value", ["shared", "/", "", "/a/../b", 5])
def test_a_path_that_is_not_absolute_is_refused(value):
    (problem,) = _validate.check_path("cluster_shared_dir", value)
    assert repr(value) in problem.text


@pytest.mark.parametrize(
    ("groups", "source", "items"),
    [
        (GROUPS, "nfs", []),
        ({"controller": ["a"]}, "provided", []),
        ({"controller": ["a"]}, "nfs", ["group nfs_server"]),
        ({"controller": ["a"], "nfs_server": ["a", "b"]}, "nfs", ["group nfs_server"]),
        ({"controller": [], "nfs_server": ["a"]}, "nfs", ["group controller"]),
    ],
)
def test_parts_that_a_cluster_needs_are_played(groups, source, items):
    assert [problem.item for problem in _validate.check_groups(groups, source)] == items


def test_a_host_of_an_old_group_is_no_head_but_the_report_says_how_it_would_be():
    (problem,) = _validate.check_groups({"driver": ["a"]}, "provided")
    assert problem.remedy.endswith("; the old group driver means that only in files that turnkey.hpc.static reads")


def test_a_server_of_slurm_that_no_play_would_reach_is_named():
    groups = {"controller": ["head", "db"], "compute": ["n1", "n2"]}
    assert _validate.check_servers("slurm_database_host", ["db"], groups) == []
    (problem,) = _validate.check_servers("slurm_backup_controllers", ["db", "n1", "n2"], groups)
    assert "n[1-2] are not in the group controller" in problem.text


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"cluster_shared_dri": "/x"},
            "`cluster_shared_dri` is not a variable of any role -> did you mean `cluster_shared_dir`?",
        ),
        ({"slurm_ports": "many"}, "`slurm_ports` is 'many', which is no list -> give it a value of type list of int"),
        ({"cluster_users": "alice"}, "`cluster_users` is 'alice', which is no list -> "),
        ({"cluster_users": [{"name": "alice"}]}, "`cluster_users[1]` has no `uid` -> "),
        ({"cluster_users": [{"name": "a", "uid": True}]}, "`cluster_users[1].uid` is True, which is no int -> "),
        (
            {"cluster_users": [{"name": "alice", "uid": 2001, "grups": []}]},
            "`cluster_users[1]` has the unknown key `grups` -> did you mean `groups`?",
        ),
        ({"cluster_users": [{"name": "Al", "uid": 2001}]}, "cluster_users[Al]: 'Al' is no legal login name -> "),
        ({"cluster_network": None}, "`cluster_network` is not set, and the role cluster needs it -> set it for all"),
    ],
)
def test_what_the_check_of_variables_finds_and_what_it_cannot_know_are_in_one_report(settings, text):
    (found,) = texts(find(inventory(**settings)))
    assert found.startswith(text)


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        ({"cluster_name": "X"}, "all.yml:1"),
        ({"cluster_network": "8.8.8.0/24", "cluster_users": []}, "all.yml:1"),
        ({"cluster_users": [{"name": "Al", "uid": 2001}]}, "all.yml:1"),
        ({"cluster_shared_dir": "x"}, "all.yml:1"),
    ],
)
def test_problems_of_values_have_file_and_line(settings, origin):
    addresses = {} if "cluster_network" in settings else HOSTS
    found = find(inventory(hosts=addresses or {"a": "8.8.8.1"}, groups=GROUPS, **settings))
    assert [problem.origin for problem in found if problem.item.partition("[")[0] in settings] == [origin]


def test_an_own_variable_that_is_declared_passes():
    assert find(inventory(slurm_mine=1, extra=["slurm_mine"])) == []
    assert find(inventory(slurm_mine=1, cluster_extra_variables=["slurm_mine"])) == []


def test_a_value_found_wrong_is_not_told_twice():
    assert len(find(inventory(cluster_name=["lab"]))) == 1


def test_a_value_that_is_not_known_yet_is_not_judged():
    assert find(inventory(cluster_shared_dir="{{ ansible_facts['x'] }}")) == []


def test_a_shared_variable_that_differs_between_hosts_is_told_with_both_values():
    settings = [
        _validate.Setting("cluster_name", "lab", ["head"], "", "host head"),
        _validate.Setting("cluster_name", "bal", ["node1"], "", "host node1"),
        _validate.Setting("cluster_network", "10.20.0.0/24", ["head"], "", "host head"),
    ]
    found = texts(find(_validate.Inventory(settings, HOSTS, GROUPS)))
    assert found[0].startswith("cluster_name: differs between hosts: 'lab' for head, 'bal' for node1")
    assert found[1].startswith("`cluster_network` is not set for node1")


def test_an_empty_inventory_is_one_problem():
    (problem,) = find(inventory(hosts={}, groups={}))
    assert problem.text == "the inventory: has no hosts"


def test_all_problems_are_reported_at_once_sorted_by_line_and_item():
    bad = inventory(
        hosts={"n10": "1.1.1.1", "n2": "1.1.1.2"}, groups={}, cluster_name="X", slurm_x=1, cluster_shared_dir="y"
    )
    items = [problem.item for problem in find(bad)]
    assert items == [
        "group controller",
        "group nfs_server",
        "host n2",
        "host n10",
        "cluster_name",
        "cluster_shared_dir",
        "slurm_x",
    ]


def test_the_report_names_place_problem_and_remedy():
    problems = [_validate.Problem("a.yml:2", "`b` is c", "do d"), _validate.Problem("", "e: is f", "do g")]
    assert _validate.render(problems).splitlines() == [
        "The inventory has 2 problems. Nothing was changed.",
        "",
        "- a.yml:2: `b` is c",
        "  Remedy: do d",
        "- e: is f",
        "  Remedy: do g",
    ]
