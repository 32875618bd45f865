# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.memory import MAX_ERRORS, opened


def test_what_one_process_remembers_the_next_one_knows(tmp_path):
    path = tmp_path / "memory.json"
    with opened(path) as memory:
        memory.record("n1").code = "Capacity"
        memory.closed["main"] = 12.0
    with opened(path) as memory:
        assert memory.nodes["n1"].code == "Capacity"
        assert memory.closed == {"main": 12.0}


def test_what_was_decided_is_remembered_also_if_telling_it_failed(tmp_path):
    path = tmp_path / "memory.json"

    def decide_and_fail():
        with opened(path) as memory:
            memory.closed["main"] = 12.0
            raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        decide_and_fail()
    with opened(path) as memory:
        assert memory.closed == {"main": 12.0}


def test_a_damaged_memory_is_begun_anew_and_says_so(tmp_path):
    path = tmp_path / "memory.json"
    path.write_text('{"nodes": {"n1": {"colour": 3}}}', encoding="utf-8")
    with opened(path) as memory:
        assert not memory.nodes
        assert "damaged" in memory.errors[0]


def test_only_the_last_errors_are_kept(tmp_path):
    with opened(tmp_path / "memory.json") as memory:
        for number in range(MAX_ERRORS + 5):
            memory.note(str(number))
        assert memory.errors[-1] == str(MAX_ERRORS + 4)
        assert len(memory.errors) == MAX_ERRORS
