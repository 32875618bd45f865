# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that is an action documents the options that the action reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.action import preflight, preflight_report, validate_inventory
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import CHECKS
from ansible_collections.turnkey.hpc.plugins.modules import preflight as preflight_module
from ansible_collections.turnkey.hpc.plugins.modules import preflight_report as preflight_report_module
from ansible_collections.turnkey.hpc.plugins.modules import validate_inventory as validate_inventory_module


def documented(module):
    return yaml.safe_load(module.DOCUMENTATION)["options"]


@pytest.mark.parametrize(
    ("module", "action"), [(preflight_module, preflight), (preflight_report_module, preflight_report)]
)
def test_the_documentation_has_the_options_of_the_action(module, action):
    plain = {
        name: {key: option[key] for key in option if key != "description"}
        for name, option in documented(module).items()
    }
    assert plain == action.OPTIONS


def test_the_check_of_the_inventory_takes_no_options():
    assert documented(validate_inventory_module) == {}
    assert not hasattr(validate_inventory, "OPTIONS")


def test_the_documentation_names_every_check():
    text = " ".join(documented(preflight_report_module)["ignore"]["description"])
    assert [name for name in CHECKS if f"C({name})" not in text] == []


def test_the_role_lets_every_check_be_ignored():
    role = Path(preflight.__file__).resolve().parents[2] / "roles/preflight/meta/argument_specs.yml"
    options = yaml.safe_load(role.read_text())["argument_specs"]["main"]["options"]
    assert options["preflight_ignore"]["choices"] == list(CHECKS)
