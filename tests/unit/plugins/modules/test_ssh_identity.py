# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.modules import ssh_identity


def call(**params):
    defaults = {"state": "present", "phase": "look", "name": "node1", "users": [], "service": "ssh", "revoked_keys": []}
    module = SimpleNamespace(
        params={**defaults, **params}, check_mode=True, _diff=False, run_command=lambda argv, **_options: (0, "", "")
    )
    return ssh_identity.run(module)


def test_unusable_names_are_reported_before_anything_is_looked_at() -> None:
    with pytest.raises(HpcError, match="2 problems"):
        call(users=["root", "../x"])


def test_writing_does_nothing_in_check_mode() -> None:
    assert call(phase="write", files=[{"path": "/nonexistent/x", "content": "eA=="}], reload=True) == {"changed": True}


def test_an_account_is_found_by_name_only_where_it_exists() -> None:
    assert ssh_identity.account("root") == (0, 0)
    assert ssh_identity.account("no-such-user-here") is None
