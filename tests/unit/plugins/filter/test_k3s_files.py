# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.k3s_files import EXAMPLES, FilterModule


def test_the_example_of_the_documentation_works_and_errors_become_ansibles():
    files = FilterModule().filters()["k3s_files"]
    settings = yaml.safe_load(EXAMPLES)[0]["vars"]["settings"]
    made = files({**settings, "token": "t" * 20, "agent_token": "a" * 20})
    assert made["config"]["server"] == "https://head:6443"
    with pytest.raises(AnsibleFilterError, match="no secret of 16 characters"):
        files({**settings, "token": ""})
