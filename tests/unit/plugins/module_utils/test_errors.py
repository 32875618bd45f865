# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Port 99999 is too large.",), "Port 99999 is too large."),
        (("Port 99999 is too large.", "Use 1-65535."), "Port 99999 is too large. Remedy: Use 1-65535."),
    ],
)
def test_the_remedy_follows_what_is_wrong(arguments, message):
    assert str(HpcError(*arguments)) == message


def test_both_parts_can_be_used_apart():
    error = HpcError("It is full.", "Make room.")
    assert (error.what, error.remedy) == ("It is full.", "Make room.")


def test_wrong_input_is_caught_with_all_other_errors_of_the_collection():
    with pytest.raises(HpcError, match=r"x is 3\. Remedy: Use 4\."):
        raise InvalidInput("x is 3.", "Use 4.")


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        (["a is wrong."], "a is wrong."),
        (["a is wrong.", "b is wrong."], "2 problems:\n1. a is wrong.\n2. b is wrong."),
    ],
)
def test_several_problems_are_numbered_and_a_single_one_is_not(problems, message):
    assert join_problems(problems) == message
