# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter import hostlist_expand

expand = hostlist_expand.FilterModule().filters()["hostlist_expand"]


def test_a_host_list_is_expanded():
    assert expand("node[09-10],head") == ["node09", "node10", "head"]


def test_a_list_instead_of_a_text_is_refused():
    with pytest.raises(AnsibleFilterError, match=r"got \['node1'\]"):
        expand(["node1"])


def test_a_bad_host_list_is_an_error_of_the_filter():
    with pytest.raises(AnsibleFilterError, match="without a ']'"):
        expand("node[1")
