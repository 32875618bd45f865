# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import random

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _hostlist
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput


@pytest.mark.parametrize(
    ("names", "folded"),
    [
        ([], ""),
        (["head"], "head"),
        (["node1"], "node1"),
        (["node1", "node2", "node3", "node7"], "node[1-3,7]"),
        (["node3", "node1", "node2", "node2"], "node[1-3]"),
        (["node9", "node10", "node11"], "node[9-11]"),
        (["node08", "node09", "node10"], "node[08-10]"),
        (["node98", "node99", "node100"], "node[98-100]"),
        (["node099", "node100"], "node[099-100]"),
        (["node8", "node08", "node9", "node09", "node10"], "node[8-9,08-10]"),
        (["node0", "node1"], "node[0-1]"),
        (["node00", "node0"], "node[0,00]"),
        (["node", "node1", "node2"], "node,node[1-2]"),
        (["node1", "head", "gpu2", "gpu1"], "gpu[1-2],head,node1"),
        (["r1n1", "r1n2", "r2n1"], "r1n[1-2],r2n1"),
        (["r10n1", "r2n1"], "r2n1,r10n1"),
        (["node1-ib", "node2-ib"], "node1-ib,node2-ib"),
        (["1", "2"], "[1-2]"),
    ],
)
def test_names_fold_into_a_sorted_host_list(names, folded):
    assert _hostlist.fold(names) == folded


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a[1]", "a]"])
def test_a_name_that_would_break_the_list_is_refused(name):
    with pytest.raises(InvalidInput, match="can't be in a host list"):
        _hostlist.fold(["node1", name])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("head", ["head"]),
        ("node[1-3,7]", ["node1", "node2", "node3", "node7"]),
        ("node[3,1]", ["node3", "node1"]),
        ("node[08-10]", ["node08", "node09", "node10"]),
        ("node[001-3]", ["node001", "node002", "node003"]),
        ("node[99-101]", ["node99", "node100", "node101"]),
        ("head,node[1-2],login1", ["head", "node1", "node2", "login1"]),
        ("r[1-2]n[01-02]", ["r1n01", "r1n02", "r2n01", "r2n02"]),
        ("node[1-2]-ib", ["node1-ib", "node2-ib"]),
        ("[1-2]", ["1", "2"]),
    ],
)
def test_a_host_list_expands_in_the_order_it_gives(text, names):
    assert _hostlist.expand(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node[1-3", r"a '\[' without a '\]'"),
        ("node1-3]", r"a '\]' without a '\['"),
        ("node[1-[2]]", "a bracket within a bracket"),
        ("node[]", "neither a number nor a range"),
        ("node[1,]", "neither a number nor a range"),
        ("node[a-c]", "'a-c' in brackets"),
        ("node[1-2-3]", "'1-2-3' in brackets"),
        ("node[5-3]", "runs backwards. Remedy: write 3-5"),
        ("a,,b", "an empty name"),
        ("a,", "an empty name"),
        ("a, b", "white space"),
        ("node[1-99999999999]", "more than 1000000 names"),
        ("n[1-9999]x[1-9999]", "more than 1000000 names"),
        ("n[0-999999],m[0-5]", "more than 1000000 names"),
    ],
)
def test_a_malformed_host_list_is_refused_with_its_text_and_the_reason(text, message):
    with pytest.raises(InvalidInput, match=message) as error:
        _hostlist.expand(text)
    assert repr(text) in str(error.value)


def test_folding_and_expanding_gives_the_same_names_back():
    chance = random.Random(20)
    for _round in range(500):
        names = set()
        for _name in range(chance.randint(1, 60)):
            stem = chance.choice(["node", "gpu", "r1-n", "n0x", ""])
            number = f"{chance.randint(0, 130):0{chance.randint(1, 4)}d}"
            names.add(stem + number + chance.choice(["", "", "", "-ib"]))
        folded = _hostlist.fold(names)
        expanded = _hostlist.expand(folded)
        assert len(expanded) == len(names)
        assert set(expanded) == names
        assert _hostlist.fold(expanded) == folded


def test_natural_order_puts_2_before_10():
    assert sorted(["n10", "n2", "head", "n1-b", "n1"], key=_hostlist.natural_key) == ["head", "n1", "n1-b", "n2", "n10"]
