# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleParserError
from ansible_collections.turnkey.hpc.plugins.inventory.libvirt import InventoryModule


def test_a_hypervisor_that_cannot_be_used_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(InventoryModule, "get_option", lambda _self, _name: ["qemu:///nowhere"])
    with pytest.raises(AnsibleParserError, match="hypervisor 'qemu:///nowhere' can't be used"):
        InventoryModule().fetch("lab")


@pytest.mark.parametrize(("name", "accepted"), [("a.libvirt.yml", True), ("a.docker.yml", False)])
def test_only_its_own_files_are_read(tmp_path, name, accepted):
    (tmp_path / name).touch()
    assert InventoryModule().verify_file(str(tmp_path / name)) is accepted
