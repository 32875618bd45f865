# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a virtual machine starts from, read by other programs than those that made it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._disk_image import DiskImage, cpio
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils.test_disk_image import archive_of, root

__all__ = ["root"]  # a fixture


def test_cpio_reads_the_archive(tmp_path):
    archive = cpio([("bin", 0o040755, b""), ("bin/busybox", 0o100755, b"a shell"), ("init", 0o100755, b"#!/bin/sh\n")])
    argv = ["cpio", "--extract", "--quiet", "--make-directories", "--no-preserve-owner", "bin", "bin/*", "init"]
    subprocess.run(argv, input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/busybox").read_text() == "a shell"
    assert (tmp_path / "init").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755


def test_an_image_that_boots_by_itself_has_a_partition_with_its_loader_and_one_with_the_system(root, tmp_path):
    image = DiskImage(tmp_path / "images/node", "efi")
    with pytest.raises(HpcError, match=r"has no usr/lib/systemd/boot/efi/systemd-bootx64\.efi"):
        image.publish(archive_of(root), [], [], {"name": "node", "hash": "1"}, 1)
    loader = root / "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
    loader.parent.mkdir(parents=True)
    loader.write_text("a loader")
    image.publish(archive_of(root), [], [], {"name": "node", "hash": "1"}, 1)
    assert sorted(path.name for path in image.directory.iterdir()) == ["disk.qcow2", "image.json"]
    assert (image.describe()["kernel"], image.describe()["firmware"]) == (None, "efi")
    raw, system = tmp_path / "raw", tmp_path / "system.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", image.directory / "disk.qcow2", raw], check=True)

    def loaded(path):
        return subprocess.run(["mtype", "-i", f"{raw}@@1M", f"::{path}"], capture_output=True, check=True).stdout

    assert loaded("EFI/BOOT/BOOTX64.EFI") == b"a loader"
    assert loaded("vmlinuz") == b"a kernel"
    assert b"options root=/dev/vda2 rw " in loaded("loader/entries/turnkey.conf")
    table = subprocess.run(["sfdisk", "--json", raw], capture_output=True, check=True).stdout
    second = json.loads(table)["partitiontable"]["partitions"][1]
    with raw.open("rb") as disk, system.open("wb") as file:
        disk.seek(second["start"] * 512)
        shutil.copyfileobj(disk, file)
    shown = subprocess.run(["debugfs", "-R", "cat /etc/motd", system], capture_output=True, check=True).stdout
    assert shown == b"hello\n"
    blocks = subprocess.run(["dumpe2fs", "-h", system], capture_output=True, text=True, check=True).stdout
    count, size = (int(re.search(rf"{name}: +([0-9]+)", blocks)[1]) for name in ("Block count", "Block size"))
    assert count * size <= second["size"] * 512
