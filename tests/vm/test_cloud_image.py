# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image of a cloud image as distributions publish them: a file, a boot loader for BIOS, cloud-init, netplan.

Such a machine takes two minutes to start where it is emulated, and it is started twice.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sites import IMAGES, TOP, Lab, new_site, traces

CLUSTER = "cloudy"
BUILD_NETWORK = "10.97.24.0/26"
MADE = IMAGES / "vm-cloudy"
GROUP_VARS = {
    "base_image_format": "qcow2",
    "base_image_directory": str(IMAGES),
    "base_image_name": MADE.name,
    "base_image_network": BUILD_NETWORK,
    "base_image_instance_type": "small",
    "base_image_roles": ["baseline", "nfs_client"],
    "cluster_provider": "libvirt",
    "cluster_network": "10.97.25.0/24",
    "cluster_libvirt": {"kinds": {"small": {"vcpus": 1, "memory_mb": 1024}}, "accelerator": "emulation"},
    "cluster_machine_sets": [{"name": "head", "image": str(MADE), "instance_type": "small", "bastion": True}],
}
PACKAGES = (
    "cloud-init,dbus,iproute2,initramfs-tools,linux-image-cloud-amd64,netplan.io,openssh-server,python3-apt,"
    "systemd-resolved,systemd-sysv,ca-certificates,libnss-resolve"
)
TABLE = "label: dos\nstart=1MiB, size=128MiB, type=c, bootable\nstart=129MiB, type=83\n"
LOADER = "DEFAULT linux\nLABEL linux\n LINUX vmlinuz\n INITRD initrd.img\n APPEND root=/dev/vda2 ro console=ttyS0\n"
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")


def run(*argv: str | Path, stdin: str = "") -> None:
    done = subprocess.run([str(word) for word in argv], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout[-3000:]}{done.stderr[-3000:]}"


def make_cloud_image(work: Path, image: Path) -> None:
    """Write a disk as a distribution would, without a device of the kernel: only mmdebstrap's packages are on it."""
    root, raw, packages = work / "root", work / "disk.raw", work / "root.tar"
    run("mmdebstrap", "--variant=apt", f"--include={PACKAGES}", "--dpkgopt=force-unsafe-io", "bookworm", packages)
    root.mkdir()
    run("tar", "-x", "-p", "--numeric-owner", "--xattrs", "--exclude=./dev/*", "-f", packages, "-C", root)
    for name in (root / "etc/ssh").glob("ssh_host_*"):
        name.unlink()
    (root / "etc/fstab").write_text("/dev/vda2 / ext4 defaults 0 1\n")
    (root / "etc/machine-id").write_text("")
    with raw.open("wb") as disk:
        disk.truncate(3 << 30)
        disk.write(MBR.read_bytes())
    run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", raw, stdin=TABLE)
    # sfdisk keeps the boot code that is before its table.
    partition = f"{raw}@@1M"
    run("mformat", "-i", partition, "-F", "-T", str(128 << 11), "-h", "255", "-s", "63", "::")
    for kernel in (*root.glob("boot/vmlinuz-*"), *root.glob("boot/initrd.img-*")):
        run("mcopy", "-i", partition, kernel, f"::{kernel.name.partition('-')[0]}")
    (work / "syslinux.cfg").write_text(LOADER)
    run("mcopy", "-i", partition, work / "syslinux.cfg", "::")
    run("syslinux", "--offset", str(1 << 20), "--install", raw)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", root, "-E", f"offset={129 << 20}", raw, f"{(3 << 10) - 130}M")
    run("qemu-img", "convert", "-O", "qcow2", raw, image)
    shutil.rmtree(work)


@pytest.fixture(scope="module")
def cloudy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A site without machines, whose image is made of a cloud image."""
    image = tmp_path_factory.mktemp("cloud") / "debian-12-generic.qcow2"
    make_cloud_image(tmp_path_factory.mktemp("work"), image)
    group_vars = {**GROUP_VARS, "base_image_from": str(image)}
    site = new_site(TOP / ".cache/vm-cloudy-site", tmp_path_factory.mktemp("ssh"), CLUSTER, group_vars)
    try:
        yield site
    finally:
        site.play("destroy", "-e", f"destroy_confirm={CLUSTER}")
        print("\n" + "\n".join(f"{name}: {seconds:.0f} s" for name, seconds in site.seconds.items()))


def test_an_image_of_a_cloud_image_starts_as_that_one_does_and_has_what_the_roles_install(cloudy):
    cloudy.play("image")
    assert not any(traces("build", BUILD_NETWORK).values())
    given = json.loads((MADE / "image.json").read_text())
    assert (given["kernel"], given["cmdline"]) == (None, "")
    cloudy.play("provision")
    assert cloudy.root("head", "cloud-init status --wait >/dev/null; hostname") == "head"
    assert cloudy.root("head", "ls -d /sys/firmware/efi 2>/dev/null; true") == ""
    assert cloudy.root("head", "dpkg-query --show --showformat='${db:Status-Status}' nfs-common") == "installed"
    assert "10.97.25.10" in cloudy.root("head", "cat /etc/netplan/50-cloud-init.yaml")
