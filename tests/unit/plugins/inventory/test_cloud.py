# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleParserError
from ansible_collections.turnkey.hpc.plugins.inventory import cloud
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Auth, Machine
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.registry import CLOUD_PROVIDERS

MACHINE = Machine("node1", "i-1", "10.0.0.11", "node", ("compute",), True, "admin", host_key="ssh-ed25519 AAAA")


class Inventory(cloud.InventoryModule):
    """The plugin with options instead of a configuration."""

    def get_option(self, option, hostvars=None):
        return {"provider": "aws", "region": "eu-central-1"}.get(option)


class Provider:
    def __init__(self, error=None):
        self.error = error

    def list_instances(self, cluster):
        if self.error:
            raise self.error
        return [MACHINE]


def test_a_row_holds_what_hosts_and_groups_are_made_from_and_no_more(monkeypatch):
    asked = []
    monkeypatch.setattr(cloud, "connect_cloud", lambda provider, place: asked.append((provider, place)) or Provider())
    assert Inventory().fetch("demo") == [
        {"name": "node1", "address": "10.0.0.11", "set": "node", "groups": ["compute"], "running": True}
    ]
    assert asked == [("aws", {"region": "eu-central-1"})]


def test_an_error_of_the_cloud_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(cloud, "connect_cloud", lambda _provider, _place: Provider(Auth("no rights.", "Ask.")))
    with pytest.raises(AnsibleParserError, match=r"no rights\. Remedy: Ask"):
        Inventory().fetch("demo")


@pytest.mark.parametrize(("name", "accepted"), [("lab.cloud.yml", True), ("cloud.yaml", True), ("a.docker.yml", False)])
def test_only_its_own_files_are_read(tmp_path, name, accepted):
    (tmp_path / name).touch()
    assert cloud.InventoryModule().verify_file(str(tmp_path / name)) is accepted


def test_the_clouds_that_there_are_can_be_chosen():
    assert yaml.safe_load(cloud.DOCUMENTATION)["options"]["provider"]["choices"] == list(CLOUD_PROVIDERS)
