# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter import hostlist_fold

fold = hostlist_fold.FilterModule().filters()["hostlist_fold"]


def test_names_are_folded():
    assert fold(["node2", "node1", "head"]) == "head,node[1-2]"


def test_a_text_instead_of_a_list_is_refused():
    with pytest.raises(AnsibleFilterError, match="got the text 'node1'"):
        fold("node1")


def test_a_bad_name_is_an_error_of_the_filter():
    with pytest.raises(AnsibleFilterError, match="'a b' can't be in a host list"):
        fold(["a b"])
