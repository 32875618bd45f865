# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _validate

OPTIONS = {
    "cluster_name": {"type": "str", "required": True},
    "cluster_network": {"type": "str", "required": True},
    "cluster_shared_dir": {"type": "path"},
    "cluster_shared_dir_source": {"type": "str", "choices": ["nfs", "provided"]},
    "cluster_users": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {}, "uid": {"type": "int"}, "groups": {}, "state": {}},
    },
    "cluster_sets": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {}, "volumes": {"type": "list", "options": {"path": {}}}},
    },
    "slurm_token": {"type": "int", "no_log": True},
    "slurm_ports": {"type": "list", "elements": "int"},
}
ROLES = _validate.Roles(OPTIONS, ("cluster_", "slurm_"))
HOSTS = {"head": "10.20.0.10", "node1": "10.20.0.11"}
GROUPS = {"all": ["head", "node1"], "controller": ["head"], "nfs_server": ["head"], "compute": ["node1"]}


def accept(_name, _value, _option):
    return []


def refuse(_name, _value, _option):
    return ["it is wrong"]


def inventory(hosts=None, groups=None, names=(), extra=(), **settings):
    """Return a sound inventory, but for what is given. A setting of ``None`` is left out."""
    hosts = HOSTS if hosts is None else hosts
    values = {"cluster_name": "lab", "cluster_network": "10.20.0.0/24", **settings}
    return _validate.Inventory(
        [_validate.Setting(name, value, list(hosts)) for name, value in values.items() if value is not None],
        hosts,
        GROUPS if groups is None else groups,
        names,
        extra,
    )


def texts(problems):
    return [f"{problem.item}: {problem.problem} -> {problem.remedy}" for problem in problems]


def test_a_sound_inventory_has_no_problems():
    users = [{"name": "alice", "uid": 2001}, {"name": "old", "uid": 2001, "state": "absent"}]
    sound = inventory(cluster_users=users, cluster_shared_dir="/shared", cluster_shared_dir_source="nfs")
    assert _validate.find_problems(sound, ROLES, accept) == []


def test_specs_of_all_roles_and_entry_points_are_read():
    documents = {
        "slurm": {"argument_specs": {"main": {"options": {"slurm_x": {"type": "int"}}}, "reset": {"options": None}}},
        "users": {"argument_specs": {"install": {"options": {"users_y": None}}}},
        "later": None,
    }
    roles = _validate.Roles.from_specs(documents)
    assert roles.options == {"slurm_x": {"type": "int"}, "users_y": {}}
    assert roles.prefixes == ("later_", "slurm_", "users_")


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
    assert reason in problem.problem


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
    assert [text in problem.problem for problem in problems] == ([True] if text else [])


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
    assert text in problem.problem


@pytest.mark.parametrize(
    ("users", "expected"),
    [
        ([], []),
        ("alice", ["cluster_users: 'alice' is no list of accounts"]),
        ([{"uid": 2001}], ["cluster_users[1]: has no name"]),
        ([{"name": "alice"}], ["cluster_users[alice]: has no uid"]),
        ([{"name": "Alice", "uid": 2001}], ["cluster_users[Alice]: 'Alice' is no legal login name"]),
        ([{"name": 7, "uid": 2001}], ["cluster_users[1]: 7 is no legal login name"]),
        ([{"name": "alice", "uid": 999}], ["cluster_users[alice]: uid 999 is no number of 1000 to 59999"]),
        ([{"name": "alice", "uid": 60000}], ["cluster_users[alice]: uid 60000 is no number"]),
        ([{"name": "alice", "uid": "abc"}], ["cluster_users[alice]: uid 'abc' is no number"]),
        ([{"name": "alice", "uid": True}], ["cluster_users[alice]: uid True is no number"]),
        ([{"name": "alice", "uid": "2001"}], []),
        (
            [{"name": "alice", "uid": 2001}, {"name": "bob", "uid": 2001}],
            ["cluster_users[alice]: uid 2001 belongs to alice and bob"],
        ),
        (
            [{"name": "alice", "uid": 2001}, {"name": "alice", "uid": 2002}],
            ["cluster_users[alice]: the name 'alice' is there more than once"],
        ),
        (
            [{"name": "alice", "uid": 2001, "grups": []}],
            ["cluster_users[alice]: key 'grups' is unknown -> did you mean groups?"],
        ),
    ],
)
def test_accounts_have_legal_and_unique_names_and_ids(users, expected):
    found = texts(_validate.check_users(users, OPTIONS["cluster_users"]))
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected))


@pytest.mark.parametrize("value", ["shared", "/", "", "/a/../b", 5])
def test_a_path_that_is_not_absolute_is_refused(value):
    (problem,) = _validate.check_path("cluster_shared_dir", value)
    assert repr(value) in problem.problem


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


def test_an_unknown_variable_of_a_role_is_told_with_the_nearest_name():
    (text,) = texts(_validate.find_problems(inventory(cluster_shared_dri="/x"), ROLES, accept))
    assert text.startswith("cluster_shared_dri: is not a variable of any role -> did you mean cluster_shared_dir?")


def test_an_own_variable_that_is_declared_passes():
    assert _validate.find_problems(inventory(slurm_mine=1, extra=["slurm_mine"]), ROLES, accept) == []


def test_an_unknown_variable_of_some_hosts_names_them():
    sound = inventory()
    settings = [*sound.settings, _validate.Setting("slurm_x", 1, ["node1"])]
    (problem,) = _validate.find_problems(_validate.Inventory(settings, sound.addresses, sound.groups), ROLES, accept)
    assert problem.problem == "is not a variable of any role (set for node1)"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"slurm_ports": "many"}, "slurm_ports: 'many' does not fit -> give it a value of type list of int"),
        (
            {"cluster_shared_dir_source": "nsf"},
            "cluster_shared_dir_source: 'nsf' does not fit -> choose one of nfs, provided",
        ),
        ({"slurm_token": "s3cret"}, "slurm_token: its value (hidden) does not fit -> give it a value of type int"),
        ({"cluster_sets": [{"name": "a"}]}, "cluster_sets: [{'name': 'a'}] does not fit: it is wrong -> give"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_would(settings, text):
    def check(name, value, option):
        return refuse(name, value, option) if name in settings else []

    (found,) = texts(_validate.find_problems(inventory(**settings), ROLES, check))
    assert found.startswith(text)


def test_misspelt_keys_are_found_at_any_depth():
    sets = [{"name": "a"}, {"nmae": "b", "volumes": [{"pth": "/x"}]}]
    assert texts(_validate.find_problems(inventory(cluster_sets=sets), ROLES, accept)) == [
        "cluster_sets[2]: key 'nmae' is unknown -> did you mean name?",
        "cluster_sets[2].volumes: key 'pth' is unknown -> did you mean path?",
    ]


def test_a_template_that_fails_is_told():
    sound = inventory()
    settings = [*sound.settings, _validate.Setting("slurm_ports", None, ["head"], error="'x' is undefined")]
    (problem,) = _validate.find_problems(
        _validate.Inventory(settings, sound.addresses, sound.groups), ROLES, refuse_nothing_but(())
    )
    assert problem.problem == "its template fails for head: 'x' is undefined"


def refuse_nothing_but(names):
    return lambda name, value, option: ["no"] if name in names else []


def test_a_value_found_wrong_is_not_told_twice():
    problems = _validate.find_problems(inventory(cluster_name=5), ROLES, refuse_nothing_but(["cluster_name"]))
    assert len(problems) == 1


def test_missing_shared_variables_are_told_with_what_was_probably_meant():
    missing = inventory(cluster_name=None, cluster_network=None, names=["clster_name"])
    found = texts(_validate.find_problems(missing, ROLES, accept))
    assert len(found) == 2
    assert found[0].startswith("cluster_name: is not set -> set it in group_vars")
    assert found[0].endswith("did you mean clster_name?")


def test_a_shared_variable_that_differs_between_hosts_is_told_with_both_values():
    settings = [
        _validate.Setting("cluster_name", "lab", ["head"]),
        _validate.Setting("cluster_name", "bal", ["node1"]),
        _validate.Setting("cluster_network", "10.20.0.0/24", ["head"]),
    ]
    found = texts(_validate.find_problems(_validate.Inventory(settings, HOSTS, GROUPS), ROLES, accept))
    assert found[0].startswith("cluster_name: differs between hosts: 'lab' for head, 'bal' for node1")
    assert found[1].startswith("cluster_network: is not set for node1")


def test_an_empty_inventory_is_one_problem():
    (problem,) = _validate.find_problems(inventory(hosts={}, groups={}), ROLES, accept)
    assert problem.problem == "has no hosts"


def test_all_problems_are_reported_at_once_sorted_by_item():
    bad = inventory(
        hosts={"n10": "1.1.1.1", "n2": "1.1.1.2"}, groups={}, cluster_name="X", slurm_x=1, cluster_shared_dir="y"
    )
    items = [problem.item for problem in _validate.find_problems(bad, ROLES, accept)]
    assert items == [
        "cluster_name",
        "cluster_shared_dir",
        "group controller",
        "group nfs_server",
        "host n2",
        "host n10",
        "slurm_x",
    ]


def test_the_report_names_item_problem_and_remedy():
    problems = [_validate.Problem("a", "is b", "do c"), _validate.Problem("d", "is e", "do f")]
    assert _validate.render(problems).splitlines() == [
        "The inventory has 2 problems. Nothing was changed.",
        "",
        "- a: is b",
        "  Remedy: do c",
        "- d: is e",
        "  Remedy: do f",
    ]
