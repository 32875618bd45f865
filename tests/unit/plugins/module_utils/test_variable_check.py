# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils import _variable_check
from ansible_collections.turnkey.hpc.plugins.module_utils._variable_check import Entry

TOP = Path(_variable_check.__file__).resolve().parents[2]
ACCOUNTS = {
    "type": "list",
    "elements": "dict",
    "options": {
        "name": {"type": "str", "required": True},
        "uid": {"type": "int", "required": True},
        "state": {"choices": ["present", "absent"]},
        "disk": {"type": "dict", "options": {"size_gb": {"type": "float"}}},
    },
}
SPECS = _variable_check.Specs.from_documents(
    {
        "cluster": {
            "argument_specs": {
                "site": {
                    "options": {
                        "cluster_name": {"type": "str", "required": True},
                        "cluster_users": ACCOUNTS,
                        "cluster_extra_variables": {"type": "list", "elements": "str"},
                        "cluster_interface": {"type": "str"},
                    }
                }
            }
        },
        "slurm": {
            "argument_specs": {
                "main": {
                    "options": {
                        "slurm_port": {"type": "int"},
                        "slurm_mode": {"type": "str", "choices": ["fast", "safe"]},
                        "slurm_key": {"type": "int", "no_log": True},
                        "slurm_limits": {"type": "dict", "options": {"cpus": {"type": "int", "required": True}}},
                    }
                },
                "reset": {"options": {"slurm_wipe": {"type": "bool"}}},
            }
        },
        "storage": {"argument_specs": {"main": {"options": {"storage_server": {"type": "str", "required": True}}}}},
        "elsewhere": {"argument_specs": {"main": {"options": {"elsewhere_x": None}}}},
        "later": None,
    }
)
RUNS = {"controller:compute": ["slurm"], "compute": ["storage"], "localhost": ["cluster"]}
GROUPS = {
    "all": ["head", "node1", "node2", "desk"],
    "controller": ["head"],
    "compute": ["node1", "node2"],
    "other": ["desk"],
    "empty": [],
}
SOUND = (Entry("all", "cluster_name", "lab", "inv:1"), Entry("group:compute", "storage_server", "head", "inv:2"))


def check(*entries, extra=(), sound=SOUND):
    return _variable_check.check_variables([*sound, *entries], GROUPS, SPECS, RUNS, extra)


def texts(*entries, **keywords):
    return [str(problem) for problem in check(*entries, **keywords)]


def test_a_sound_inventory_has_no_problems():
    assert check(Entry("all", "slurm_port", 5), Entry("host:node1", "slurm_port", 6)) == []


def test_specs_of_all_roles_and_entry_points_are_read():
    assert SPECS.options["slurm_wipe"] == {"type": "bool"}
    assert SPECS.options["elsewhere_x"] == {}
    assert SPECS.readers["slurm_port"] == {"slurm"}
    assert SPECS.required == {"cluster": ("cluster_name",), "storage": ("storage_server",)}
    assert SPECS.prefixes == ("cluster_", "elsewhere_", "later_", "slurm_", "storage_")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("slurm_prot", "slurm_port"),
        ("slrum_port", "slurm_port"),
        ("cluster_user", "cluster_users"),
        # Without the role's name.
        ("wipe", "slurm_wipe"),
        # Old names may have been meant as well.
        ("htpps_port", "https_port"),
        ("colour", None),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_one_and_its_line(name, meant):
    (problem,) = check(Entry("all", name, "443", "inv.toml:8"))
    assert problem.origin == "inv.toml:8"
    assert problem.text == f"`{name}` is not a variable of any role"
    own = "a variable of your own is called site_..., or listed in cluster_extra_variables"
    assert problem.remedy == (f"did you mean `{meant}`? Else {own}" if meant else own)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ansible_hots", "ansible_host"),
        ("ansible_prot", "ansible_port"),
        ("ansible_usr", "ansible_user"),
        ("ansible_ssh_hsot", "ansible_ssh_host"),
        ("ansible_shh_port", "ansible_ssh_port"),
        ("ansible_ssh_private_keyfile", "ansible_ssh_private_key_file"),
        ("ansible_becom_user", "ansible_become_user"),
        ("ansible_python_interpeter", "ansible_python_interpreter"),
        ("ansible_conection", "ansible_connection"),
    ],
)
def test_a_misspelt_variable_of_ansible_is_told(name, meant):
    (text,) = texts(Entry("all", name, "x", "inv:3"))
    assert text == (
        f"inv:3: `{name}` is not a variable of Ansible that is known; "
        f"did you mean `{meant}`? Else list it in cluster_extra_variables"
    )


@pytest.mark.parametrize(
    "name",
    [
        "ansible_host",
        "ansible_ssh_private_key_file",
        "ansible_become_pass",
        "ansible_ksu_pass",
        "ansible_winrm_port",
        "ansible_docker_extra_args",
        "ansible_my_own_thing",
        "site_colour",
        "molecule_file",
        "inventory_hostname",
        "groups",
    ],
)
def test_names_of_ansible_and_of_the_site_are_free(name):
    assert check(Entry("host:desk", name, [None])) == []


def test_listed_names_are_free_wherever_they_are_listed():
    odd = [Entry("all", "colour", 1), Entry("all", "slurm_x", 1), Entry("all", "ansible_hots", 1)]
    names = [entry.name for entry in odd]
    assert len(check(*odd)) == 3
    assert check(*odd, extra=names) == []
    assert check(*odd, Entry("all", "cluster_extra_variables", names)) == []


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("slurm_port", "many", ["`slurm_port` is 'many', which is no int; give it a value of type int"]),
        ("slurm_port", True, ["`slurm_port` is True, which is no int"]),
        ("slurm_port", 1.5, ["`slurm_port` is 1.5, which is no int"]),
        ("slurm_port", None, ["`slurm_port` has no value; give it a value of type int, or leave it out"]),
        ("slurm_wipe", "perhaps", ["`slurm_wipe` is 'perhaps', which is no bool; give it a value of type bool"]),
        ("slurm_wipe", 7, ["`slurm_wipe` is 7, which is no bool"]),
        ("cluster_interface", ["a"], ["`cluster_interface` is ['a'], which is no str"]),
        ("slurm_mode", "saef", ["`slurm_mode` is 'saef', which is none of its choices; choose one of fast, safe"]),
        ("slurm_limits", "cpus", ["`slurm_limits` is 'cpus', which is no dict"]),
        ("slurm_limits", {}, ["`slurm_limits` has no `cpus`; give it a `cpus` of type int"]),
        ("slurm_limits", {"cpus": None}, ["`slurm_limits.cpus` has no value"]),
        (
            "slurm_limits",
            {"cpus": 1, "cpu": 1},
            ["`slurm_limits` has the unknown key `cpu`; did you mean `cpus`?"],
        ),
        ("cluster_users", "alice", ["`cluster_users` is 'alice', which is no list; give it a value of type list of"]),
        ("cluster_users", ["alice"], ["`cluster_users[1]` is 'alice', which is no dict"]),
        (
            "cluster_users",
            [{"name": "a", "uid": 1}, {"nmae": "b", "uid": "x", "state": "gone", "disk": {"size_gb": "big", "x": 1}}],
            [
                "`cluster_users[2]` has no `name`",
                "`cluster_users[2]` has the unknown key `nmae`; did you mean `name`?",
                "`cluster_users[2].disk.size_gb` is 'big', which is no float",
                "`cluster_users[2].disk` has the unknown key `x`; the keys are size_gb",
                "`cluster_users[2].state` is 'gone', which is none of its choices; choose one of present, absent",
                "`cluster_users[2].uid` is 'x', which is no int",
            ],
        ),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_what_would(name, value, expected):
    found = texts(Entry("all", name, value))
    assert len(found) == len(expected)
    for wanted in expected:
        assert any(text.startswith(wanted) for text in found), (wanted, found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slurm_port", "5"),
        ("slurm_port", 5.0),
        ("slurm_wipe", "true"),
        ("slurm_wipe", "No"),
        ("slurm_wipe", 1),
        ("cluster_interface", 5),
        ("slurm_mode", "{{ mode }}"),
        ("slurm_port", "{{ 5 }}"),
        ("slurm_limits", {"cpus": "{{ n }}", "{{ key }}": 1}),
        ("slurm_limits", "{% if x %}{% endif %}"),
        ("cluster_users", ["{{ alice }}", {"name": "bob", "uid": "2", "disk": None}]),
        ("cluster_users", []),
        ("elsewhere_x", "x"),
    ],
)
def test_texts_of_ini_files_and_templates_pass(name, value):
    assert check(Entry("all", name, value)) == []


def test_a_secret_is_not_shown():
    (text,) = texts(Entry("all", "slurm_key", "s3cret"))
    assert text.startswith("`slurm_key` is a value (hidden), which is no int")


@pytest.mark.parametrize(
    ("scope", "misplaced"),
    [
        ("all", False),
        ("group:all", False),
        ("group:compute", False),
        ("host:head", False),
        ("group:empty", False),
        ("group:other", True),
        ("host:desk", True),
    ],
)
def test_a_variable_where_no_role_reads_it_is_told(scope, misplaced):
    found = texts(Entry(scope, "slurm_port", 5, "inv:9"))
    where = scope.replace(":", " ")
    wanted = (
        f"inv:9: `slurm_port` is set for {where}, where the role slurm does not run; "
        "move it to all, or to where it is run: controller, compute"
    )
    assert found == ([wanted] if misplaced else [])


@pytest.mark.parametrize("name", ["cluster_interface", "elsewhere_x"])
def test_what_every_role_or_a_role_of_the_sites_own_plays_reads_may_be_anywhere(name):
    assert check(Entry("host:desk", name, "1")) == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            [],
            [
                "`cluster_name` is not set, and the role cluster needs it; set it for all",
                "`storage_server` is not set for node[1-2], and the role storage needs it; set it for all or compute",
            ],
        ),
        (
            [Entry("host:head", "cluster_name", "x"), Entry("host:node1", "storage_server", "x")],
            [
                "`cluster_name` is not set for desk,node[1-2], and the role cluster needs it; set it for all",
                "`storage_server` is not set for node2, and the role storage needs it; set it for all or compute",
            ],
        ),
        (
            [Entry("all", "clutser_name", "x", "inv:4"), Entry("all", "storage_server", "x")],
            [
                "`cluster_name` is not set, and the role cluster needs it; "
                "set it for all; did you mean it by `clutser_name`?",
                "inv:4: `clutser_name` is not a variable of any role; did you mean `cluster_name`? "
                "Else a variable of your own is called site_..., or listed in cluster_extra_variables",
            ],
        ),
    ],
)
def test_a_variable_that_a_role_needs_is_missing(entries, expected):
    assert texts(*entries, sound=[]) == expected


def test_a_role_that_runs_on_no_host_needs_nothing():
    groups = {"all": ["head"], "controller": ["head"], "compute": []}
    assert _variable_check.check_variables([SOUND[0]], groups, SPECS, RUNS, ()) == []


def test_groups_without_all_are_enough():
    assert _variable_check.check_variables(SOUND, {"compute": ["node1"]}, SPECS, RUNS, ()) == []


def test_an_old_name_that_was_not_mapped_is_told_with_the_new_one():
    (text,) = texts(Entry("host:head", "my_iface", "eth0", "inv:5"))
    assert text.startswith("inv:5: `my_iface` is the old name of `cluster_interface`; write `cluster_interface`")


def test_a_mistake_on_many_lines_is_told_once_with_all_places_counted():
    entries = [Entry(f"host:n{number}", "slurm_prot", 1, f"inv:{number}") for number in range(10, 16)]
    (text,) = texts(*entries)
    assert text.startswith(
        "inv:10: `slurm_prot` is not a variable of any role (also inv:11, inv:12, inv:13 and 2 more)"
    )


def test_without_file_and_line_the_hosts_are_named():
    (one,) = texts(Entry("host:node1", "slurm_prot", 1))
    assert one.startswith("`slurm_prot` is not a variable of any role (on host node1); ")
    (both,) = texts(Entry("host:node1", "slurm_prot", 1), Entry("host:node2", "slurm_prot", 1))
    assert both.startswith("`slurm_prot` is not a variable of any role (on node[1-2]); ")
    (everywhere,) = texts(Entry("all", "slurm_prot", 1))
    assert everywhere.startswith("`slurm_prot` is not a variable of any role; ")


def test_all_problems_are_told_at_once_in_the_order_of_their_lines():
    entries = [
        Entry("all", "slurm_port", "x", "inv:10"),
        Entry("all", "colour", "x", "inv:9"),
        Entry("all", "slurm_mode", "x", "inv:9"),
        Entry("host:desk", "slurm_wipe", True, "inv:100"),
    ]
    places = [(problem.origin, problem.item) for problem in check(*entries, sound=SOUND[1:])]
    assert places == [
        ("", "cluster_name"),
        ("inv:9", "colour"),
        ("inv:9", "slurm_mode"),
        ("inv:10", "slurm_port"),
        ("inv:100", "slurm_wipe"),
    ]
    assert all(problem.text and problem.remedy for problem in check(*entries))


def test_a_template_that_fails_is_told():
    setting = _variable_check.Setting("slurm_port", None, ["head"], where="host head", error="'x' is undefined")
    found = _variable_check.check_settings([setting], {"all": ["head"]}, SPECS, {}, ())
    assert found[-1].text == "the template of `slurm_port` fails: 'x' is undefined (on host head)"


MACHINES = {"all": ["a", "b", "w1", "w2", "w3"], "web": ["w1", "w2", "w3"], "old": ["w3"], "others": ["a"]}


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("all", "a b w1 w2 w3"),
        ("*", "a b w1 w2 w3"),
        ("web", "w1 w2 w3"),
        ("others:web", "a w1 w2 w3"),
        ("others, b", "a b"),
        ("web[0]", "w1"),
        ("web[-1]", "w3"),
        ("web[5]", ""),
        ("web[0:1]", "w1 w2"),
        ("web[1:]", "w2 w3"),
        ("web[1:2]:others", "w2 w3 a"),
        ("web:!old", "w1 w2"),
        ("!web", "a b"),
        ("web:&old", "w3"),
        ("web:&{{ targets | default('a:b') }}", "w1 w2 w3"),
        ("{{ targets }}", "a b w1 w2 w3"),
        ("w*", "w1 w2 w3"),
        ("~w[12]", "w1 w2"),
        ("o*", "w3 a"),
        ("localhost", ""),
        ("nowhere", ""),
    ],
)
def test_hosts_of_a_play_are_those_that_ansible_takes(pattern, hosts):
    assert _variable_check.match_hosts(pattern, MACHINES) == hosts.split()


def test_roles_are_found_wherever_a_play_runs_them():
    playbook = yaml.safe_load(
        """
        - import_playbook: other.yml
        - hosts: a
          roles: [turnkey.hpc.one, {role: two}, {name: three}]
        - hosts: [a, b]
          pre_tasks:
            - ansible.builtin.import_role: {name: turnkey.hpc.four}
          tasks:
            - block:
                - include_role: {name: five}
              rescue:
                - import_role: {name: six}
            - ansible.builtin.debug: {}
        - hosts: a
          tasks:
            - import_role: {name: turnkey.hpc.seven, tasks_from: reset.yml}
            - include_role: {name: "turnkey.hpc.{{ item }}"}
        - hosts: none
          tasks: []
        """
    )
    assert _variable_check.roles_by_group([playbook, None]) == {
        "a": ("one", "two", "three", "seven"),
        "a:b": ("four", "five", "six"),
    }


def test_the_collections_own_specs_and_playbooks_are_read_and_agree():
    specs = _variable_check.load_specs(TOP / "roles", yaml.safe_load)
    runs = _variable_check.load_roles_by_group(TOP / "playbooks", yaml.safe_load)
    roles = {role for names in runs.values() for role in names}
    assert roles <= {prefix[:-1] for prefix in specs.prefixes}
    assert "baseline" in runs["all"]
    assert specs.required["cluster"] == ("cluster_name", "cluster_network")
    assert _variable_check.load_specs(TOP / "roles", yaml.safe_load) is specs


def test_ten_thousand_hosts_are_checked_in_a_moment():
    hosts = [f"n{number}" for number in range(10_000)]
    entries = [
        Entry(f"host:{host}", name, value, f"inv:{line}")
        for line, host in enumerate(hosts)
        for name, value in (("ansible_host", host), ("cluster_interface", host), ("slurm_port", line))
    ]
    groups = {"all": hosts, "compute": hosts}
    start = time.process_time()
    found = _variable_check.check_variables([*SOUND, *entries], groups, SPECS, RUNS, ())
    assert found == []
    assert time.process_time() - start < 1
