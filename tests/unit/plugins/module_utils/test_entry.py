# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Entry, Problem, sort_problems


def test_an_entry_needs_no_place():
    assert Entry("all", "x", 1) == Entry(scope="all", name="x", value=1, origin="")


def test_a_problem_is_one_line_with_its_place_if_that_is_known():
    assert str(Problem("inv:1", "`x` is odd", "make it even")) == "inv:1: `x` is odd; make it even"
    assert str(Problem("", "`x` is odd", "make it even")) == "`x` is odd; make it even"


def test_problems_are_sorted_by_number_of_line_and_told_once():
    first, tenth, nowhere = (Problem(origin, "is", "do") for origin in ("inv:9", "inv:10", ""))
    assert sort_problems([tenth, first, nowhere, first]) == [nowhere, first, tenth]
    by_item = [Problem("", "is", "do", item) for item in ("n2", "n10")]
    assert sort_problems(by_item[::-1]) == by_item
