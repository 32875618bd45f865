# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import yaml
from ansible_collections.turnkey.hpc.plugins.action import validate_inventory as action
from ansible_collections.turnkey.hpc.plugins.modules import validate_inventory as module


def test_the_documentation_has_no_options_and_the_action_reads_none():
    assert yaml.safe_load(module.DOCUMENTATION)["options"] == {}
    assert not hasattr(action, "OPTIONS")
