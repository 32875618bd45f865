# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.node_power_settings import FilterModule

KIND = {"name": "b", "nodes": ["b1"], "provider": "docker", "machine": {"image": "i", "first_address": "10.0.0.9"}}


def test_the_filter_returns_settings_and_its_errors_are_ansibles():
    settings = FilterModule().filters()["node_power_settings"]
    assert settings([KIND], None, ["head"], "300", "p")["addresses"] == {"b1": "10.0.0.9"}
    with pytest.raises(AnsibleFilterError, match="no host"):
        settings([KIND])
