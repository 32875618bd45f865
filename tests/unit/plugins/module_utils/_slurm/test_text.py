# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.text import line, parse_line, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "yes"),
        (False, "no"),
        (5, "5"),
        (["a", 2, True], "a,2,yes"),
        (" x ", "x"),
        ("a#b", r"a\#b"),
        (r"a\#b", r"a\#b"),
        ('"a b"', '"a b"'),
    ],
)
def test_values_are_written_as_slurm_reads_them(value, text) -> None:
    assert value_text(value) == (text, "")


@pytest.mark.parametrize("value", [{}, {"a": 1}, "", "a\nSlurmUser=root", 'a"b', ["a", None], None])
def test_values_that_would_break_the_line_are_refused(value) -> None:
    text, wrong = value_text(value)
    assert text == ""
    assert wrong


def test_white_space_is_quoted_and_read_back() -> None:
    written = line("NodeName", "n[1-2]", [("Reason", "no fan"), ("CPUs", "2")])
    assert written == 'NodeName=n[1-2] Reason="no fan" CPUs=2'
    assert parse_line(written) == [("NodeName", "n[1-2]"), ("Reason", "no fan"), ("CPUs", "2")]
    assert parse_line("# NodeName=x") == []
