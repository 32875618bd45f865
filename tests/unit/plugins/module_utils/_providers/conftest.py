# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest


@pytest.fixture
def hypervisor():
    from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils._providers import libvirt_bench

    libvirt_bench.Pool.uploads.clear()
    libvirt_bench.Pool.consoles.clear()
    return libvirt_bench.Hypervisor("qemu:///system")


@pytest.fixture
def image(tmp_path):
    from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils._providers import libvirt_bench

    return libvirt_bench.make_image(tmp_path / "image", "0123456789abcdef")
