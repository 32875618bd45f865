# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils import _old_layout, _variable_check
from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Entry

TOP = Path(_old_layout.__file__).resolve().parents[2]
DOCUMENT = TOP / "docs" / "inventory-old-layout.md"
OLD = {"all": ["h1", "w1", "w2"], "driver": ["h1"], "worker": ["w1", "w2"], "registry": ["h1"]}
ADDRESSES = [
    Entry("host:h1", "ansible_ssh_host", "10.0.0.1", "inv.toml:2"),
    Entry("host:w1", "ansible_ssh_host", "10.0.0.7", "inv.toml:4"),
    Entry("host:w2", "ansible_host", "10.0.0.8", "inv.toml:5"),
]
REQUIREMENT = """my_iface has_gpu convect_workdir convect_token jhub_config_path install_docker install_nvidia_driver
    docker_repo http_port https_port"""


def test_every_name_of_the_old_layout_is_in_the_table_once():
    assert sorted(variable.old for variable in _old_layout.OLD_VARIABLES) == sorted(REQUIREMENT.split())
    assert [group.name for group in _old_layout.OLD_GROUPS] == ["driver", "master", "worker"]


def test_a_new_name_is_in_the_spec_of_its_role():
    specs = _variable_check.load_specs(TOP / "roles", yaml.safe_load)
    for variable in _old_layout.OLD_VARIABLES:
        assert variable.new.startswith(f"{variable.role}_"), variable
        option = specs.options.get(variable.new)
        # A role that is there has its own spec; then the table need not say when it comes.
        assert option is not None, variable
        assert option is None or option.get("type") == variable.type, variable


def test_groups_are_added_beside_the_old_ones():
    groups, _entries, notes = _old_layout.map_old_layout(OLD, ADDRESSES)
    assert groups == {
        **OLD,
        "controller": ["h1"],
        "jupyterhub": ["h1"],
        "k3s_server": ["h1"],
        "login": ["h1"],
        "nfs_server": ["h1"],
        "compute": ["w1", "w2"],
        "k3s_agent": ["w1", "w2"],
    }
    assert notes[:2] == [
        "the group driver is now controller, jupyterhub, k3s_server, login, nfs_server",
        "the group worker is now compute, k3s_agent",
    ]


def test_one_host_of_several_masters_serves_the_shared_directory():
    groups, _entries, _notes = _old_layout.map_old_layout({"driver": ["a", "b"], "master": ["b", "c"]}, [])
    assert groups["k3s_server"] == ["a", "b", "c"]
    assert groups["nfs_server"] == ["a"]


def test_the_callers_groups_are_left_alone():
    given = {"driver": ["a"], "master": ["b"]}
    _old_layout.map_old_layout(given, [])
    assert given == {"driver": ["a"], "master": ["b"]}


def test_beside_our_groups_an_old_name_is_a_group_of_the_sites_own():
    given = {"controller": ["a"], "worker": ["b"]}
    groups, entries, notes = _old_layout.map_old_layout(given, [])
    assert (groups, entries) == (given, [])
    assert notes == ["the group worker is taken as one of your own, since the inventory has the group controller"]


def test_an_inventory_of_the_new_layout_is_left_as_it_is():
    given = {"controller": ["a"], "registry": ["a"], "driver": []}
    entries = [Entry("all", "cluster_name", "x"), Entry("host:a", "ansible_ssh_host", "10.0.0.1")]
    assert _old_layout.map_old_layout(given, entries) == (given, entries, [])


@pytest.mark.parametrize(
    ("old", "value", "new", "mapped"),
    [
        ("my_iface", "eth0", "cluster_interface", "eth0"),
        ("has_gpu", "true", "gpu_present", True),
        ("has_gpu", "False", "gpu_present", False),
        ("has_gpu", "perhaps", "gpu_present", "perhaps"),
        ("has_gpu", "{{ x }}", "gpu_present", "{{ x }}"),
        ("install_nvidia_driver", False, "gpu_install_driver", False),
        ("install_docker", "no", "docker_engine_install", False),
        ("docker_repo", "reg:5000", "container_registry_mirror", "reg:5000"),
        ("convect_workdir", "/data", "k3s_work_dir", "/data"),
        ("convect_token", "0123", "k3s_token", "0123"),
        ("jhub_config_path", "./hub.py", "jupyterhub_config_file", "./hub.py"),
        ("http_port", "8080", "jupyterhub_http_port", 8080),
        ("https_port", 8443, "jupyterhub_https_port", 8443),
    ],
)
def test_a_variable_is_mapped_where_it_stands_and_the_note_names_the_new_one(old, value, new, mapped):
    _groups, entries, notes = _old_layout.map_old_layout({}, [Entry("host:w1", old, value, "inv.toml:7")])
    assert entries == [Entry("host:w1", new, mapped, "inv.toml:7")]
    (note,) = notes
    assert note.startswith(f"inv.toml:7: `{old}` is now `{new}`")


def test_one_note_tells_of_all_places():
    given = [Entry(f"host:w{number}", "docker_repo", "reg:5000", f"inv:{number}") for number in range(1, 4)]
    _groups, _entries, notes = _old_layout.map_old_layout({}, given)
    assert notes == ["inv:1: `docker_repo` is now `container_registry_mirror` (and 2 more)"]


def test_the_new_name_counts_where_both_are_set():
    given = [Entry("all", "my_iface", "a", "inv:1"), Entry("all", "cluster_interface", "b", "inv:2")]
    _groups, entries, notes = _old_layout.map_old_layout({}, given)
    assert entries == given[1:]
    assert notes == ["inv:1: `my_iface` is ignored, since `cluster_interface`, its new name, is set beside it"]


def test_what_the_old_layout_leaves_open_is_added_and_told():
    _groups, entries, notes = _old_layout.map_old_layout(OLD, ADDRESSES)
    assert entries[3:] == [
        Entry("host:h1", "cluster_address", "10.0.0.1"),
        Entry("host:w1", "cluster_address", "10.0.0.7"),
        Entry("all", "cluster_name", "cluster"),
        Entry("all", "cluster_network", "10.0.0.0/24"),
    ]
    assert notes[2:] == [
        "`cluster_name` is not set: taken as cluster",
        "`cluster_network` is not set: taken as 10.0.0.0/24, which has the addresses of all hosts",
    ]


def test_what_is_set_is_not_guessed():
    given = [
        *ADDRESSES[:2],
        Entry("host:h1", "cluster_address", "10.9.0.1"),
        Entry("host:w1", "ansible_host", "10.9.0.2"),
        Entry("host:w2", "ansible_host", "w2.example.com"),
        Entry("all", "cluster_name", "lab"),
    ]
    _groups, entries, notes = _old_layout.map_old_layout(OLD, given)
    assert entries == given
    assert notes[2:] == []


@pytest.mark.parametrize(
    ("addresses", "network"),
    [
        (["10.0.0.1", "10.0.0.200"], "10.0.0.0/24"),
        (["10.0.0.1", "10.0.1.2"], "10.0.0.0/23"),
        (["192.168.1.1"], "192.168.1.0/24"),
        (["10.0.0.1", "10.200.0.1"], ""),
        (["8.8.8.8"], ""),
        (["10.0.0.1", "node"], ""),
        ([], ""),
    ],
)
def test_a_network_is_taken_from_the_addresses_if_it_is_private_and_small(addresses, network):
    assert _old_layout.network_of(addresses) == network


def test_an_old_inventory_passes_the_check_once_it_is_mapped():
    given = [
        *ADDRESSES,
        *(Entry("all", name, "1", f"inv.toml:{line}") for line, name in enumerate(REQUIREMENT.split())),
    ]
    groups, entries, _notes = _old_layout.map_old_layout(OLD, given)
    specs = _variable_check.load_specs(TOP / "roles", yaml.safe_load)
    runs = _variable_check.load_roles_by_group(TOP / "playbooks", yaml.safe_load)
    assert _variable_check.check_variables(entries, groups, specs, runs, ()) == []
    assert len(_variable_check.check_variables(given, OLD, specs, runs, ())) == len(REQUIREMENT.split()) + 2


def test_the_document_has_the_table():
    text = DOCUMENT.read_text(encoding="utf-8")
    between = text.partition("<!-- tables -->")[2].partition("<!-- /tables -->")[0]
    assert between.strip() == _old_layout.render_tables(), (
        "put the output of _old_layout.render_tables() between the markers"
    )
