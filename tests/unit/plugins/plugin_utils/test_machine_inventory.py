# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.template import is_trusted_as_template, trust_as_template
from ansible_collections.turnkey.hpc.plugins.inventory.docker import InventoryModule
from ansible_collections.turnkey.hpc.plugins.plugin_utils import _machine_inventory as plugin

ROWS = [
    {"name": "node10", "address": "10.0.0.20", "set": "node", "groups": ["compute"], "running": True},
    {"name": "node2", "address": "10.0.0.12", "set": "node", "groups": ["compute"], "running": False},
    {"name": "head", "address": "10.0.0.10", "set": "head", "groups": ["controller", "own"], "running": True},
]


class Inventory(InventoryModule):
    """The plugin with recorded rows instead of an engine, and options instead of a configuration."""

    def __init__(self, rows, **options):
        super().__init__()
        self.fetched, self.rows = 0, rows
        defaults = {
            "cluster_name": "demo",
            "access_dir": ".secrets/access",
            "include_stopped": False,
            "strict": True,
            "compose": {},
            "groups": {},
            "keyed_groups": [],
            "cache": False,
        }
        self.options = {**defaults, **options}
        self._cache = {}

    def get_option(self, option, hostvars=None):
        return self.options[option]

    def get_cache_key(self, path):
        return path

    def _read_config_data(self, path):
        return {}

    def fetch(self, cluster):
        self.fetched += 1
        return self.rows


def parsed(tmp_path, rows=None, cache=True, plugin_object=None, **options):
    data = InventoryData()
    one = plugin_object or Inventory(ROWS if rows is None else rows, **options)
    one.parse(data, DataLoader(), str(tmp_path / "demo.docker.yml"), cache)
    data.reconcile_inventory()
    return data, one


def test_running_machines_are_hosts_of_the_groups_in_their_labels(tmp_path):
    data, _one = parsed(tmp_path)
    groups = data.get_groups_dict()
    assert list(data.hosts) == ["head", "node10"]
    assert (groups["compute"], groups["controller"], groups["own"]) == (["node10"], ["head"], ["head"])


def test_stopped_machines_are_hosts_only_when_asked_for(tmp_path):
    data, _one = parsed(tmp_path, include_stopped=True)
    assert list(data.hosts) == ["head", "node2", "node10"]


def test_canonical_groups_exist_without_any_machine(tmp_path):
    data, _one = parsed(tmp_path, rows=[])
    assert set(plugin.CANONICAL_GROUPS) <= set(data.groups)
    assert list(data.hosts) == []


def test_a_host_has_two_variables_and_the_rest_is_shared(tmp_path):
    data, _one = parsed(tmp_path)
    own = {name: value for name, value in data.hosts["head"].vars.items() if not name.startswith("inventory_")}
    assert own == {"cluster_address": "10.0.0.10"}
    shared = data.groups["all"].vars
    assert shared["cluster_name"] == "demo"
    assert shared["cluster_secrets_dir"] == str(tmp_path / ".secrets")
    assert shared["ansible_ssh_common_args"] == f"-F {tmp_path}/.secrets/access/ssh_config"


def test_constructed_groups_see_set_and_state(tmp_path):
    options = {
        "keyed_groups": [{"key": trust_as_template("machine_set"), "prefix": "set"}],
        "groups": {"big": trust_as_template("machine_name == 'node10'")},
    }
    data, _one = parsed(tmp_path, **options)
    assert data.get_groups_dict()["set_node"] == ["node10"]
    assert data.get_groups_dict()["big"] == ["node10"]


def test_a_warm_run_fetches_nothing_and_a_refresh_does(tmp_path):
    _data, one = parsed(tmp_path, plugin_object=Inventory(ROWS, cache=True))
    assert one.fetched == 1
    data, _one = parsed(tmp_path, plugin_object=one)
    assert one.fetched == 1
    assert list(data.hosts) == ["head", "node10"]
    parsed(tmp_path, cache=False, plugin_object=one)
    assert one.fetched == 2


@pytest.mark.parametrize(("name", "accepted"), [("a.docker.yml", True), ("docker.yaml", True), ("a.yml", False)])
def test_configuration_files_are_known_by_their_suffix(tmp_path, name, accepted):
    (tmp_path / name).touch()
    assert InventoryModule().verify_file(str(tmp_path / name)) is accepted


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ('plugin = "turnkey.hpc.docker"\ncluster_name = "demo"\n', True),
        ("# mine\n  plugin = 'turnkey.hpc.docker'  # containers\n", True),
        ('plugin = "turnkey.hpc.libvirt"\n', False),
        ('# plugin = "turnkey.hpc.docker"\n[compute.hosts]\nnode1 = {}\n', False),
        ("[compute]\nnode1\n", False),
    ],
)
def test_a_toml_file_is_known_by_its_content(tmp_path, text, accepted):
    path = tmp_path / "inv.toml"
    path.write_text(text)
    assert InventoryModule().verify_file(str(path)) is accepted


def test_the_strings_of_a_toml_file_may_be_templates(tmp_path):
    path = tmp_path / "inv.toml"
    path.write_text('cluster_name = "demo"\n[groups]\nbig = "true"\n[[keyed_groups]]\nkey = "machine_set"\n')
    options = plugin.TomlLoader().load_from_file(str(path), cache="none", trusted_as_template=True)
    assert options == {"cluster_name": "demo", "groups": {"big": "true"}, "keyed_groups": [{"key": "machine_set"}]}
    assert is_trusted_as_template(options["groups"]["big"])
    assert is_trusted_as_template(options["keyed_groups"][0]["key"])


def test_broken_toml_is_one_clear_error(tmp_path):
    path = tmp_path / "inv.toml"
    path.write_text("cluster_name = \n")
    with pytest.raises(AnsibleParserError, match=r"inv\.toml is not valid TOML: .*line 1"):
        plugin.TomlLoader().load_from_file(str(path))


def test_clusters_with_the_same_host_names_share_no_connection_and_paths_fit_a_socket():
    one, other = (plugin.shared_variables("a" * 20, Path(path)) for path in ("/x/access", "/y/access"))
    assert one["ansible_control_path_dir"] != other["ansible_control_path_dir"]
    ssh_adds = len("/0123456789.0123456789abcdef")
    assert len(one["ansible_control_path_dir"].replace("~", "/home/" + "u" * 31)) + ssh_adds < 108
