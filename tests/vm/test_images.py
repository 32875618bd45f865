# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`image.yml` makes images that start by themselves, and images of an image that the user has."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from sites import IMAGES, TOP, Lab, new_site, traces

CLUSTER = "made"
BUILD_NETWORK = "10.97.22.0/26"
BARE, MADE = IMAGES / "vm-bare", IMAGES / "vm-made"
GROUP_VARS = {
    "base_image_format": "qcow2",
    "base_image_directory": str(IMAGES),
    "base_image_source": "mmdebstrap",
    "base_image_network": BUILD_NETWORK,
    "cluster_provider": "libvirt",
    "cluster_network": "10.97.26.0/24",
    "cluster_libvirt": {"kinds": {"small": {"vcpus": 1, "memory_mb": 1024}}, "accelerator": "emulation"},
    "cluster_machine_sets": [{"name": "head", "image": str(MADE), "instance_type": "small", "bastion": True}],
}
FIRST = {"base_image_name": BARE.name, "base_image_boot": "efi", "base_image_roles": ["baseline"]}
SECOND = {
    "base_image_name": MADE.name,
    "base_image_from": str(BARE),
    "base_image_instance_type": "small",
    "base_image_roles": ["baseline", "nfs_client"],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A site without machines, whose image is made of another one, which starts by EFI."""
    site = new_site(TOP / ".cache/vm-image-site", tmp_path_factory.mktemp("ssh"), CLUSTER, GROUP_VARS)
    try:
        yield site
    finally:
        site.play("destroy", "-e", f"destroy_confirm={CLUSTER}")
        print("\n" + "\n".join(f"{name}: {seconds:.0f} s" for name, seconds in site.seconds.items()))


def left_of_builds() -> dict[str, list[str]]:
    return {kind: lines for kind, lines in traces("build", BUILD_NETWORK).items() if lines}


def extra(variables: dict[str, object]) -> tuple[str, str]:
    return "-e", json.dumps(variables)


def test_a_machine_of_an_image_that_was_made_of_another_starts_by_the_loader_on_its_disk(images):
    images.play("image", *extra(FIRST))
    images.play("image", *extra(SECOND))
    assert left_of_builds() == {}
    images.play("provision")
    assert images.root("head", "ls -d /sys/firmware/efi; findmnt --noheadings --output SOURCE /").split() == [
        "/sys/firmware/efi",
        "/dev/vda2",
    ]
    assert images.root("head", "dpkg-query --show --showformat='${db:Status-Status}' nfs-common") == "installed"
    assert images.root("head", "systemctl --failed --no-legend --plain") == ""


def test_the_file_system_of_such_an_image_was_closed_and_not_cut_off(images, tmp_path):
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", MADE / "disk.qcow2", raw], check=True)
    table = json.loads(subprocess.run(["sfdisk", "--json", raw], check=True, capture_output=True).stdout)
    start = table["partitiontable"]["partitions"][1]["start"] * 512
    with raw.open("rb") as disk:
        disk.seek(start + 1024)
        superblock = disk.read(1024)
    assert superblock[0x38:0x3A] == b"\x53\xef", "it is ext4"
    assert not superblock[0x60] & 0x04, "its journal need not be replayed"


def test_such_a_machine_has_nothing_of_the_one_that_the_image_was_made_on(images):
    assert images.root("head", "hostname") == "head"
    machine = images.root("head", "cat /etc/machine-id")
    assert len(machine) == 32
    assert images.root("head", "ls /var/log/journal 2>/dev/null; true") in ("", machine)
    assert images.root("head", "ls -A /var/lib/turnkey /var/lib/apt/lists/*Packages 2>/dev/null; true") == ""
    assert images.root("head", "wc --lines </root/.ssh/authorized_keys") == "1"


def test_the_same_inputs_are_not_built_twice(images):
    assert "changed=0 " in images.play("image", *extra(SECOND))


def test_a_disk_that_does_not_come_up_is_told_with_its_console_and_nothing_is_left(images, tmp_path):
    disk = tmp_path / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1G"], check=True)
    given = {**SECOND, "base_image_from": str(disk), "base_image_ready_seconds": 10}
    failed = images.run_playbook("image", *extra(given))
    assert failed.returncode != 0
    said = " ".join((failed.stdout + failed.stderr).split())
    assert "machine build is not ready after 10 s" in said
    assert "Its console ends with" in said
    assert left_of_builds() == {}
    assert not list((images.path / ".secrets/builds").iterdir())
