# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.turnkey.hpc.plugins.filter.nfs_exports import FilterModule

nfs_exports = FilterModule().filters()["nfs_exports"]


def test_exports_are_numbered_and_keep_what_was_given():
    first, second = nfs_exports(
        [{"path": "/a", "read_only": True}, {"path": "/b", "clients": ["h"], "mode": "0755"}], "n/24"
    )
    assert (first["id"], first["read_only"], first["clients"]) == (1, True, ["n/24"])
    assert (second["id"], second["clients"], second["directory"]["mode"]) == (2, ["h"], "0755")


def test_a_bad_export_is_an_error_of_ansible():
    with pytest.raises(AnsibleFilterError, match="absolute path"):
        nfs_exports([{"path": "shared"}], "10.0.0.0/24")
