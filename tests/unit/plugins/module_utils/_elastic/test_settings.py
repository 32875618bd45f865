# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.settings import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

KIND = {"name": "burst", "nodes": "burst[1-4]", "provider": "docker", "host": "power"}


def test_only_nodes_of_a_kind_are_elastic():
    settings = Settings.parse({"kinds": [KIND]})
    assert settings.kind_of("burst4").name == "burst"
    assert settings.kind_of("head") is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"limits": {"max_node": 3}}, "`max_node` is no limit"),
        ({"limits": {"max_nodes": -1}}, "not negative"),
        ({"limits": {"max_nodes": True}}, "not negative"),
        ({"limits": {"boot_seconds": 300}, "resume_timeout_seconds": 300}, "less time than Slurm gives its node"),
        ({"limits": {"heartbeat_seconds": 30}}, "give 120 or more"),
        ({"limits": {"breaker_failures": 0}}, "give 1 or more"),
        ({"kinds": [{**KIND, "level": "slurm"}]}, "has the level 'slurm'"),
        ({"kinds": [{**KIND, "host": ""}]}, "no host that makes its machines"),
        ({"kinds": [{**KIND, "nodes": "burst[1-"}]}, "without a ']'"),
        ({"kinds": [KIND, {**KIND, "name": "other"}]}, "burst1 is in the kinds burst and other"),
    ],
)
def test_what_cannot_be_is_an_error_that_says_why(data, said):
    with pytest.raises(InvalidInput, match=r".*") as error:
        Settings.parse(data)
    assert said in str(error.value)


def test_all_problems_are_told_at_once():
    with pytest.raises(InvalidInput, match="2 problems"):
        Settings.parse({"kinds": [{**KIND, "host": "", "level": "x"}]})
