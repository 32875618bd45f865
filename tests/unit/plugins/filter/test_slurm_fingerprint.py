# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.slurm_fingerprint import FilterModule

fingerprint = FilterModule().filters()["slurm_fingerprint"]


def test_it_is_short_and_differs_where_slurmd_must_be_restarted() -> None:
    one, other, same = (
        [{"slurm.conf": {"TaskPlugin": plugin, "MessageTimeout": timeout}}, {}, {}]
        for plugin, timeout in (("task/cgroup", 1), ("task/affinity", 1), ("task/cgroup", 2))
    )
    assert len(fingerprint(one, "22.05")) == 16
    assert fingerprint(one, "22.05") != fingerprint(other, "22.05")
    assert fingerprint(one, "22.05") == fingerprint(same, "22.05")


def test_an_unknown_key_is_an_error_of_the_filter() -> None:
    with pytest.raises(AnsibleFilterError, match="did you mean `TaskPlugin`"):
        fingerprint([{}, {}, {"slurm.conf": {"TaskPlugn": 1}}], "22.05")
