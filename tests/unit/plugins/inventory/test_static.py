# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.inventory.data import InventoryData
from ansible_collections.turnkey.hpc.plugins.inventory.static import Filler, shown
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
    AddChild,
    AddGroup,
    AddHosts,
    Parsed,
    SetVariable,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import CANONICAL_GROUPS


def fill(*steps: AddChild | AddGroup | AddHosts | SetVariable) -> tuple[InventoryData, list[int]]:
    inventory = InventoryData()
    faults = Filler(inventory, "/x/inv.toml").fill(Parsed(list(steps), [], []))
    return inventory, [fault.line for fault in faults]


def test_hosts_get_their_group_port_and_variables() -> None:
    inventory, faults = fill(AddGroup("web", 1), AddHosts(["h", "i"], "web", 22, {"a": "x", "b": [1]}, 2))
    assert faults == []
    assert [host.name for host in inventory.groups["web"].hosts] == ["h", "i"]
    assert inventory.hosts["i"].vars == {
        "inventory_file": None,
        "inventory_dir": None,
        "ansible_port": 22,
        "a": "x",
        "b": [1],
    }


def test_the_canonical_groups_are_defined_but_hide_no_host_of_their_name() -> None:
    inventory, _faults = fill(AddHosts(["login"], "ungrouped", None, {}, 1))
    assert set(CANONICAL_GROUPS) - set(inventory.groups) == {"login"}


def test_what_ansible_refuses_has_its_line() -> None:
    _inventory, faults = fill(
        AddGroup("a", 1), AddGroup("b", 2), AddChild("a", "b", 3), AddChild("b", "a", 4), AddChild("a", "a", 5)
    )
    assert faults == [4, 5]


def test_a_path_is_shown_from_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(str(tmp_path / "site/inv.toml")) == "site/inv.toml"
    assert shown("/elsewhere/inv.toml") == "/elsewhere/inv.toml"
