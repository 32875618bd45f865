# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.modules import nfs_support_info


def missing(argv, **options):
    raise FileNotFoundError(argv[0])


@pytest.mark.parametrize("run_command", [missing, lambda argv, **options: (1, "", "")])
def test_a_host_without_modprobe_is_like_one_without_modules(run_command):
    found = nfs_support_info.run_module(SimpleNamespace(params={"exports": []}, run_command=run_command))
    assert set(found) == {"client", "server", "container", "problems"}
    assert found["problems"] == []
