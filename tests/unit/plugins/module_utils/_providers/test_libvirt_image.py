# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt_image as images

QCOW2 = b"QFI\xfb\x00\x00\x00\x03" + bytes(64)
NO_KERNEL = {"kernel": None, "initrd": None, "cmdline": ""}
GIVEN = {"hash": "0123456789abcdef0123", "disk": "disk.qcow2", "kernel": "vmlinuz", "initrd": None, "cmdline": "ro"}


def image(path, content=QCOW2, **changes):
    (path / "disk.qcow2").write_bytes(content)
    (path / "vmlinuz").write_bytes(b"kernel")
    (path / "image.json").write_text(json.dumps({**GIVEN, **changes}))
    return str(path)


def test_an_image_is_read_with_its_kernel_and_named_by_its_inputs(tmp_path):
    found = images.read_image(image(tmp_path))
    assert (found.version, found.cmdline, found.initrd) == ("0123456789abcdef", "ro", None)
    assert images.volume_names(found) == {
        "qcow2": "image-0123456789abcdef.qcow2",
        "vmlinuz": "image-0123456789abcdef.vmlinuz",
    }


def test_the_link_to_the_newest_image_is_followed_at_once(tmp_path):
    (tmp_path / "one").mkdir()
    image(tmp_path / "one")
    (tmp_path / "link").symlink_to("one")
    assert images.read_image(str(tmp_path / "link")).disk == tmp_path / "one" / "disk.qcow2"


def test_a_disk_alone_boots_by_itself(tmp_path):
    (tmp_path / "cloud.qcow2").write_bytes(QCOW2)
    found = images.read_image(str(tmp_path / "cloud.qcow2"))
    assert (found.kernel, set(images.volume_names(found))) == (None, {"qcow2"})
    (tmp_path / "cloud.qcow2").write_bytes(QCOW2 + b"more")
    assert images.read_image(str(tmp_path / "cloud.qcow2")).version != found.version


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hash": "../../etc"}, "is not one"),
        ({"hash": None}, "is not one"),
        ({"kernel": "../vmlinuz"}, "is not the name of a file"),
        ({"disk": "/etc/passwd"}, "is not the name of a file"),
        ({"initrd": "initrd"}, "lacks .*initrd"),
        ({"disk": None}, "lacks a disk"),
        ({"disk": "vmlinuz"}, "is not in the format qcow2"),
        ({"firmware": "coreboot"}, "firmware 'coreboot' in image.json is unknown"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, changes, problem):
    with pytest.raises(HpcError, match=problem):
        images.read_image(image(tmp_path, **changes))


def test_half_an_image_is_refused(tmp_path):
    with pytest.raises(HpcError, match=r"has no image\.json"):
        images.read_image(str(tmp_path))
    (tmp_path / "image.json").write_text("{")
    with pytest.raises(HpcError, match="can't be used"):
        images.read_image(str(tmp_path))
    with pytest.raises(HpcError, match="does not exist"):
        images.read_image(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ({"waiting": "wait"}, {"kernel": "vmlinuz", "initrd": None, "cmdline": "ro", "waiting": "wait"}),
        (
            {"kernel": None, "cmdline": "", "firmware": "efi"},
            {**NO_KERNEL, "firmware": "efi"},
        ),
    ],
)
def test_an_image_that_is_made_of_another_starts_as_that_one(tmp_path, given, start):
    assert images.start_of(images.read_image(image(tmp_path, **given))) == start


def test_the_remedy_is_that_of_who_asks(tmp_path):
    with pytest.raises(HpcError, match=r"none does not exist\. Remedy: Mend x\."):
        images.read_image(str(tmp_path / "none"), "Mend x.")


def test_a_disk_that_lies_on_another_file_is_refused(tmp_path):
    with pytest.raises(HpcError, match="backing file"):
        images.read_image(image(tmp_path, content=b"QFI\xfb\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x02\x00"))


def test_only_images_that_nobody_uses_are_unused():
    names = ["image-0123456789abcdef.qcow2", "image-0123456789abcdef.complete", "image-fedcba9876543210.vmlinuz"]
    others = ["node1.disk.qcow2", "image-x.qcow2", "image-0123456789abcdef.save", "my-image-0123456789abcdef.qcow2"]
    assert images.unused_images([*names, *others], ["0123456789abcdef"]) == ["image-fedcba9876543210.vmlinuz"]
    assert images.unused_images([*names, *others], []) == names
