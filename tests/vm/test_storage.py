# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage pools of a real libvirt, whose directory somebody has removed by hand."""

from __future__ import annotations

import shutil
import uuid

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_api import connect_hypervisor
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_xml import pool_xml


@pytest.mark.parametrize("running", [True, False])
def test_a_pool_that_lost_its_directory_gets_another_and_can_be_removed(tmp_path, running):
    hypervisor, identity, directory = connect_hypervisor("qemu:///system"), str(uuid.uuid4()), tmp_path / "pool"
    name = f"turnkey-lost-{identity[:8]}"
    hypervisor.create_pool(pool_xml(name, identity, str(directory)))
    try:
        pool = hypervisor.pool(identity)
        pool.create("old", 4096)
        if not running:
            pool._handle.destroy()
        shutil.rmtree(directory)
        pool = hypervisor.pool(identity)
        pool.refresh()
        assert pool.names() == []
        pool.create("new", 4096)
        assert (directory / "new").stat().st_size == 4096
        pool.remove("new")
    finally:
        hypervisor.pool(identity).delete()
    assert not directory.exists()
    assert name not in hypervisor.pool_names()
