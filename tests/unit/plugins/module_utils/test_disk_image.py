# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import json
import lzma
import shutil
import subprocess
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._disk_image import (
    DiskImage,
    cpio,
    initrd,
    kernel_of,
    lay_over,
    module,
    modules_with_dependencies,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._images import OverlayEntry

KERNEL = "6.1.0-50-cloud-amd64"
# From Debian 12's linux-image-6.1.0-50-cloud-amd64.
DEPENDENCIES = """\
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio_pci_modern_dev.ko:
kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_modern_dev.ko kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko
"""


@pytest.fixture
def root(tmp_path):
    """Return a tree with what an image of a virtual machine has."""
    root = tmp_path / "system"
    files = {
        f"boot/vmlinuz-{KERNEL}": "a kernel",
        "usr/bin/busybox": "a shell",
        "etc/motd": "hello\n",
        ".dockerenv": "",
        f"usr/lib/modules/{KERNEL}/modules.dep": DEPENDENCIES,
    }
    for line in DEPENDENCIES.splitlines():
        files[f"usr/lib/modules/{KERNEL}/{line.partition(':')[0]}"] = "a module"
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "lib").symlink_to("usr/lib")
    (root / "bin").symlink_to("usr/bin")
    return root


def test_modules_come_after_what_they_need():
    names = [path.rpartition("/")[2] for path in modules_with_dependencies(DEPENDENCIES, ["virtio_pci", "virtio_blk"])]
    assert names == ["virtio_ring.ko", "virtio_pci_modern_dev.ko", "virtio_pci.ko", "virtio.ko", "virtio_blk.ko"]


def test_a_module_that_is_built_in_is_not_missed():
    assert modules_with_dependencies(DEPENDENCIES, ["ext4"]) == []


def test_the_headers_of_an_archive_are_those_of_the_format():
    archive = cpio([("init", 0o100755, b"#!")])
    assert archive[:6] == b"070701"
    assert len(archive) % 4 == 0
    assert int(archive[14:22], 16) == 0o100755
    assert int(archive[54:62], 16) == 2  # size
    assert int(archive[94:102], 16) == len("init\0")
    assert archive[110:115] == b"init\0"
    assert archive[116:118] == b"#!"
    assert b"dev/console\0" in archive
    assert b"TRAILER!!!\0" in archive


def test_an_initrd_loads_its_modules_in_order(root):
    assert b"for module in virtio_ring virtio_pci_modern_dev virtio_pci virtio virtio_blk; do" in initrd(root, KERNEL)


def test_modules_that_debian_13_compresses_are_loaded_as_they_are(tmp_path):
    (tmp_path / "ext4.ko").write_bytes(b"a module")
    (tmp_path / "ext4.ko.xz").write_bytes(lzma.compress(b"a module"))
    assert module(tmp_path / "ext4.ko") == module(tmp_path / "ext4.ko.xz") == b"a module"
    with pytest.raises(HpcError, match=r"module ext4\.ko\.zst is compressed in a way that isn't known"):
        module(tmp_path / "ext4.ko.zst")


def test_an_image_with_two_kernels_is_refused_by_name(root):
    (root / "boot/vmlinuz-6.1.0-51-amd64").write_text("")
    with pytest.raises(HpcError, match=r"has 2 kernels .*6\.1\.0-51-amd64"):
        kernel_of(root)


def test_what_containers_need_gives_way_to_what_machines_need(root):
    (root / "etc/masked").symlink_to("/dev/null")
    entries = [OverlayEntry("/etc/masked", "unit\n"), OverlayEntry("/etc/new/link", link="../motd")]
    lay_over(root, entries, ["/.dockerenv", "/no/such/file"])
    assert not (root / ".dockerenv").exists()
    assert (root / "etc/masked").read_text() == "unit\n"
    assert (root / "etc/new/link").read_text() == "hello\n"


def archive_of(root):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(root, ".")
    return [buffer.getvalue()]


def test_an_image_replaces_the_former_one_as_a_whole(root, tmp_path):
    if not all(shutil.which(tool) for tool in ("mke2fs", "qemu-img", "debugfs")):
        pytest.skip("needs e2fsprogs and qemu-utils")
    image = DiskImage(tmp_path / "images/node")
    assert image.describe() is None
    image.publish(archive_of(root), [], [], {"name": "node", "hash": "1"}, 1)
    (image.directory / "stale").touch()
    image.publish(archive_of(root), [OverlayEntry("/etc/motd", "bye\n")], [], {"name": "node", "hash": "2"}, 1)
    assert sorted(path.name for path in image.directory.iterdir()) == ["disk.qcow2", "image.json", "initrd", "vmlinuz"]
    assert image.describe()["hash"] == "2"
    assert image.describe()["kernel_release"] == KERNEL
    assert [path.name for path in image.directory.parent.iterdir()] == ["node"]
    info = subprocess.run(
        ["qemu-img", "info", "--output=json", image.directory / "disk.qcow2"], capture_output=True, check=True
    )
    assert json.loads(info.stdout)["virtual-size"] == 1 << 30
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.directory / "disk.qcow2", raw], check=True)
    assert subprocess.run(["debugfs", "-R", "cat /etc/motd", raw], capture_output=True, check=True).stdout == b"bye\n"


def test_a_failed_build_leaves_the_former_image(root, tmp_path):
    if not all(shutil.which(tool) for tool in ("mke2fs", "qemu-img")):
        pytest.skip("needs e2fsprogs and qemu-utils")
    image = DiskImage(tmp_path / "images/node")
    image.publish(archive_of(root), [], [], {"name": "node", "hash": "1"}, 1)
    with pytest.raises(HpcError, match="can't be unpacked"):
        image.publish([b"no archive" * 1000], [], [], {"name": "node", "hash": "2"}, 1)
    assert image.describe()["hash"] == "1"
    assert [path.name for path in image.directory.parent.iterdir()] == ["node"]


def test_an_image_of_a_whole_disk_replaces_the_former_one_with_what_starts_it(tmp_path):
    image, kernel = DiskImage(tmp_path / "images/node"), tmp_path / "kernel"
    kernel.write_text("a kernel")
    disk = b"QFI\xfb" + bytes(20) + (3 << 30).to_bytes(8, "big") + bytes(8)
    facts = {"hash": "1", "kernel": "vmlinuz"}
    description = image.publish_disk(lambda file: file.write(disk), facts, {"vmlinuz": kernel})
    assert description == image.describe()
    assert (description["virtual_mb"], description["kernel"], description["disk"]) == (3072, "vmlinuz", "disk.qcow2")
    assert (image.directory / "vmlinuz").read_text() == "a kernel"
    image.publish_disk(lambda file: file.write(disk), {"hash": "2"}, {})
    assert sorted(path.name for path in image.directory.iterdir()) == ["disk.qcow2", "image.json"]


def test_a_disk_that_was_cut_off_leaves_the_former_image(tmp_path):
    image = DiskImage(tmp_path / "images/node")
    disk = b"QFI\xfb" + bytes(40)
    image.publish_disk(lambda file: file.write(disk), {"hash": "1"}, {})
    with pytest.raises(HpcError, match=r"no qcow2 image \(4 bytes\)"):
        image.publish_disk(lambda file: file.write(disk[:4]), {"hash": "2"}, {})
    assert image.describe()["hash"] == "1"
    assert [path.name for path in image.directory.parent.iterdir()] == ["node"]
