# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import slurm_hardware_info


def test_this_machine_is_measured(capsys) -> None:
    with patch_module_args({}), pytest.raises(SystemExit):
        slurm_hardware_info.main()
    result = json.loads(capsys.readouterr().out)
    assert not result["changed"]
    hardware = result["hardware"]
    assert hardware["cpus"] == os.cpu_count()
    assert hardware["memory_mb"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024 // 1024
