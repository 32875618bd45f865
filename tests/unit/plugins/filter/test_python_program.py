# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.python_program import FilterModule


def test_the_filter_returns_a_program_and_its_errors_are_ansibles():
    make = FilterModule().filters()["python_program"]
    assert make("_elastic.main").startswith("#!/usr/bin/python3 -I\n")
    with pytest.raises(AnsibleFilterError):
        make("nothing")
