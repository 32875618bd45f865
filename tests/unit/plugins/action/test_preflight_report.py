# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.action import preflight_report
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight import Problem


def test_results_of_all_hosts_are_collected_and_a_missing_one_is_a_problem():
    memory = {"id": "memory", "problem": "too little", "remedy": "more"}
    hostvars = {
        "head": {"found": {"problems": [], "address": "10.0.0.1"}},
        "node1": {"found": {"problems": [memory], "address": "10.0.0.2"}},
        "node2": {"found": {"failed": True, "msg": "a template failed"}},
        "node3": {},
    }
    problems, addresses = preflight_report.collect(list(hostvars), "found", hostvars)
    assert problems["head"] == []
    assert problems["node1"] == [Problem("memory", "too little", "more")]
    assert [problem.id for problem in problems["node2"] + problems["node3"]] == ["survey", "survey"]
    assert addresses == {"head": "10.0.0.1", "node1": "10.0.0.2", "node2": "", "node3": ""}
