# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import yaml
from ansible_collections.turnkey.hpc.plugins.action import preflight_report as action
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import CHECKS
from ansible_collections.turnkey.hpc.plugins.modules import preflight_report as module


def test_the_documentation_has_the_options_of_the_action():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    plain = {name: {key: option[key] for key in option if key != "description"} for name, option in documented.items()}
    assert plain == action.OPTIONS


def test_the_documentation_names_every_check():
    text = " ".join(yaml.safe_load(module.DOCUMENTATION)["options"]["ignore"]["description"])
    assert [name for name in CHECKS if f"C({name})" not in text] == []


def test_the_role_lets_every_check_be_ignored():
    role = Path(action.__file__).resolve().parents[2] / "roles" / "preflight" / "meta" / "argument_specs.yml"
    options = yaml.safe_load(role.read_text())["argument_specs"]["main"]["options"]
    assert options["preflight_ignore"]["choices"] == list(CHECKS)
