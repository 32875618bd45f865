# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The laboratory: a cluster of two virtual machines with kernels of their own, made by the product's playbooks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from sites import IMAGES, TOP, Lab, new_site

CLUSTER = "lab"
NETWORK = "10.97.12.0/24"
# The layers of site.yml.
LAYERS = ("validate", "preflight", "nodes", "shared_directory", "mpi", "slurm")

GROUP_VARS = {
    "base_image_format": "qcow2",
    "base_image_directory": str(IMAGES),
    "base_image_source": "mmdebstrap",
    # What is not tested here would cost its installation, and its size with each copy.
    "base_image_roles": ["baseline", "users", "ssh_mesh", "nfs_server", "nfs_client", "openmpi", "slurm"],
    "cluster_provider": "libvirt",
    "cluster_network": NETWORK,
    "cluster_libvirt": {"kinds": {"small": {"vcpus": 1, "memory_mb": 1024}}},
    "cluster_machine_sets": [
        {
            "name": "head",
            "groups": ["controller", "nfs_server", "compute"],
            "image": str(IMAGES / "turnkey-node-debian12"),
            "instance_type": "small",
            "bastion": True,
        },
        {
            "name": "node",
            "count": 1,
            "groups": ["compute"],
            "image": str(IMAGES / "turnkey-node-debian12"),
            "instance_type": "small",
        },
    ],
    "cluster_users": [{"name": "alice", "uid": 2001}],
    # Emulated machines are as small as they can be.
    "preflight_min_cores": 1,
    "preflight_min_memory_mb": 900,
    "preflight_min_disk_gb": 5,
}


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The laboratory's site, whose image is there and whose machines are not."""
    lab = new_site(TOP / ".cache/vm-site", tmp_path_factory.mktemp("ssh"), CLUSTER, GROUP_VARS)
    try:
        lab.play("image")
        yield lab
    finally:
        print("\n" + "\n".join(f"{name}: {seconds:.0f} s" for name, seconds in lab.seconds.items()))


@pytest.fixture(scope="session")
def golden_image(request: pytest.FixtureRequest) -> str:
    """The path of the image; TURNKEY_VM_IMAGE is one that is there already."""
    given = os.environ.get("TURNKEY_VM_IMAGE")
    if not given:
        request.getfixturevalue("site")
    return given or str(IMAGES / "turnkey-node-debian12")


@pytest.fixture(scope="session")
def lab(site: Lab) -> Iterator[Lab]:
    """A cluster of two virtual machines, from nothing. TURNKEY_VM_KEEP=1 leaves it for the next run."""
    try:
        for playbook in ("provision", *LAYERS):
            site.play(playbook)
        yield site
    finally:
        if not os.environ.get("TURNKEY_VM_KEEP"):
            site.play("destroy", "-e", f"destroy_confirm={CLUSTER}")
