# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import yaml
from ansible_collections.turnkey.hpc.plugins.action import preflight as action
from ansible_collections.turnkey.hpc.plugins.modules import preflight as module


def test_the_documentation_has_the_options_of_the_action():
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]
    plain = {name: {key: option[key] for key in option if key != "description"} for name, option in documented.items()}
    assert plain == action.OPTIONS
