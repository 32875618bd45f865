# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Disk images for virtual machines: a directory with a qcow2 disk, and the kernel and initrd that boot it directly.

The disk is one ext4 file system without a partition table, or one that boots by itself under EFI: a partition with
systemd-boot, the kernel and the initrd, and one with the system. No loop device is needed, so a container can make it.
The initrd is ours: a few modules and a shell script, since the distribution's spends longer on looking for devices than
the whole rest of the kernel's start.
"""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._images import OverlayEntry

__all__ = ["BOOTS", "RECIPE", "DiskImage", "cpio", "initrd", "kernel_of", "lay_over", "modules_with_dependencies"]

DESCRIPTION, DISK = "image.json", "disk.qcow2"
BOOTS = ("direct", "efi")
COMMAND_LINE = "root=/dev/vda rw net.ifnames=0 console=ttyS0 quiet panic=-1"
LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
FIRST_MIB, LOADER_MIB = 1, 64
"""Where the loader's partition begins, and its size; the system has the rest, but for the table's copy at the end."""
PARTITIONS = f"""\
label: gpt
start={FIRST_MIB}MiB, size={LOADER_MIB}MiB, type=uefi, name=efi
start={FIRST_MIB + LOADER_MIB}MiB, type=linux, name=root
"""
LOADER_FILES = {
    "loader/loader.conf": "timeout 0\ndefault turnkey.conf\n",
    "loader/entries/turnkey.conf": f"""\
title turnkey
linux /vmlinuz
initrd /initrd
options {COMMAND_LINE.replace("/dev/vda", "/dev/vda2")}
""",
}
WAITING = "systemd.unit=turnkey-template.target"
"""What the kernel is told besides, for a machine that waits in memory for its seed."""
INITRD_MODULES = ("virtio_pci", "virtio_blk")
"""What the kernel needs to see its disk; ext4 is built in."""

INIT = """\
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod "/modules/$module.ko"; done
root=/dev/vda options=ro
for word in $(/bin/busybox cat /proc/cmdline); do
  case $word in root=*) root=${{word#root=}} ;; rw) options=rw ;; esac
done
tries=0
until [ -b "$root" ] || [ $tries = 100 ]; do
  /bin/busybox sleep 0.1 # poll interval
  tries=$((tries + 1))
done
if ! /bin/busybox mount -t ext4 -o "$options" "$root" /root; then
  echo "turnkey initrd: $root can't be mounted"
  exit 1
fi
/bin/busybox mount -o move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /sbin/init
"""

RECIPE = "\0".join([COMMAND_LINE, WAITING, *INITRD_MODULES, INIT, PARTITIONS, *LOADER_FILES.values()])
"""What an image is made of besides the inputs of its build."""

DIRECT = {"kernel": "vmlinuz", "initrd": "initrd", "cmdline": COMMAND_LINE, "waiting": WAITING}
EFI = {"kernel": None, "initrd": None, "cmdline": "", "firmware": "efi"}
"""What an image says of its start."""

MINIMUM_FREE_GB = 6


def cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """Return a cpio archive (newc) of ``entries``: path, mode with the type's bits, content. The order is kept."""
    out = bytearray()
    # The console is the one device that the kernel opens before the initrd can mount devtmpfs.
    listed = [*((path, mode, data, (0, 0)) for path, mode, data in entries), ("dev/console", 0o20600, b"", (5, 1))]
    for number, (path, mode, data, device) in enumerate([*listed, ("TRAILER!!!", 0, b"", (0, 0))], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % value for value in fields) + name
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def modules_with_dependencies(dependencies: str, wanted: Iterable[str]) -> list[str]:
    """Return the paths of the ``wanted`` modules and what they need, in the order in which they can be loaded.

    ``dependencies`` is the text of ``modules.dep``, which lists what a module needs with the deepest need last.
    """
    lines = dict(line.split(":", 1) for line in dependencies.splitlines() if ":" in line)
    by_name = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in lines}
    ordered: list[str] = []
    for name in wanted:
        if name not in by_name:
            continue  # built in
        path = by_name[name]
        ordered += [other for other in [*reversed(lines[path].split()), path] if other not in ordered]
    return ordered


def kernel_of(root: Path) -> str:
    """Return the release of the one kernel below ``root``."""
    kernels = sorted(path.name.partition("-")[2] for path in (root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise HpcError(
            f"The image has {len(kernels)} kernels ({', '.join(kernels) or 'none'}), not one.",
            "Let the roles install no other kernel than linux-image-cloud-amd64.",
        )
    return kernels[0]


def module(path: Path) -> bytes:
    """Return a kernel module as busybox loads it; Debian 13 compresses them."""
    if path.name.endswith(".ko"):
        return path.read_bytes()
    if path.name.endswith(".ko.xz"):
        return lzma.decompress(path.read_bytes())
    raise HpcError(
        f"The kernel's module {path.name} is compressed in a way that isn't known here.",
        "Give an image a kernel of Debian 12 or 13.",
    )


def initrd(root: Path, kernel: str) -> bytes:
    """Return an initrd for ``kernel``, made of the modules and the busybox below ``root``."""
    place = root / "lib/modules" / kernel
    paths = modules_with_dependencies((place / "modules.dep").read_text(), INITRD_MODULES)
    names = [Path(path).name.partition(".")[0] for path in paths]
    directories = [(name, 0o40755, b"") for name in ("bin", "dev", "modules", "proc", "root")]
    modules = [(f"modules/{name}.ko", 0o100644, module(place / path)) for name, path in zip(names, paths)]
    programs = [
        ("bin/busybox", 0o100755, (root / "bin/busybox").resolve().read_bytes()),
        ("init", 0o100755, INIT.format(modules=" ".join(names)).encode()),
    ]
    return cpio([*directories, *modules, *programs])


def lay_over(root: Path, entries: Iterable[OverlayEntry], removed: Iterable[str]) -> None:
    """Delete the ``removed`` files below ``root``, and write ``entries`` there."""
    for path in removed:
        (root / path.lstrip("/")).unlink(missing_ok=True)
    for entry in entries:
        target = root / entry.path.lstrip("/")
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if entry.link is not None:
            target.symlink_to(entry.link)
        else:
            target.write_text(entry.content or "")
            target.chmod(entry.mode)


@dataclass(frozen=True)
class DiskImage:
    """The image in ``directory``. By ``boot`` the hypervisor starts its kernel, or its own loader does."""

    directory: Path
    boot: str = "direct"

    def describe(self) -> dict[str, Any] | None:
        """Return what the image says of itself, or None where there is none."""
        try:
            description = json.loads((self.directory / DESCRIPTION).read_text())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        return description if isinstance(description, dict) else None

    def check(self) -> None:
        """Raise when this machine can't write disk images."""
        tools = ["mke2fs", "qemu-img", "tar", *(["mcopy", "mformat", "sfdisk"] if self.boot == "efi" else [])]
        missing = [tool for tool in tools if not shutil.which(tool)]
        problems = [f"{tool} is not installed" for tool in missing]
        if os.geteuid() and not shutil.which("fakeroot"):
            problems.append("files can't get their owners by an ordinary user without fakeroot")
        if problems:
            raise HpcError(
                f"A disk image can't be made here: {'; '.join(problems)}.",
                "Run 'apt-get install e2fsprogs qemu-utils fakeroot', for EFI 'mtools fdisk' as well.",
            )
        self.check_space()

    def check_space(self) -> None:
        """Raise when there is no room for an image."""
        place = self.directory.parent
        place.mkdir(parents=True, exist_ok=True)
        free_gb = shutil.disk_usage(place).free / 1e9
        if free_gb < MINIMUM_FREE_GB:
            raise HpcError(
                f"{place} has {free_gb:.1f} GB free, and making a disk image takes {MINIMUM_FREE_GB} GB.",
                "Free some space, or set base_image_directory to a place that has more.",
            )

    def publish(
        self,
        archive: Iterable[bytes],
        overlay: Iterable[OverlayEntry],
        removed: Iterable[str],
        facts: dict[str, str],
        disk_gb: int,
    ) -> dict[str, Any]:
        """Make the image of ``archive``, a tar stream of a whole system; return its description."""
        self.check()
        with self._replaced() as (made, work):
            kernel = self._fill(made, work, archive, overlay, removed, disk_gb)
            start = EFI if self.boot == "efi" else DIRECT
            return _described(made, {**facts, **start, "kernel_release": kernel, "virtual_mb": disk_gb * 1024})

    def publish_disk(
        self,
        write: Callable[[BinaryIO], None],
        facts: Mapping[str, Any],
        files: Mapping[str, Path],
    ) -> dict[str, Any]:
        """Make the image of a whole disk that ``write`` writes as qcow2; return its description.

        ``facts`` say how it starts, with the ``files`` (kernel, initrd) by their names in the image.
        """
        self.check_space()
        with self._replaced() as (made, _work):
            with (made / DISK).open("wb") as disk:
                write(disk)
            for name, path in files.items():
                shutil.copyfile(path, made / name)
            return _described(made, {**facts, "virtual_mb": _virtual_bytes(made / DISK) >> 20})

    @contextlib.contextmanager
    def _replaced(self) -> Iterator[tuple[Path, Path]]:
        """Yield a directory that becomes the image if all goes well, and one for what is needed meanwhile."""
        parent = self.directory.parent
        for forgotten in parent.glob(f".{self.directory.name}.*"):
            shutil.rmtree(forgotten)
        with tempfile.TemporaryDirectory(prefix=f".{self.directory.name}.", dir=parent) as work:
            made = Path(work) / "image"
            made.mkdir(mode=0o755)
            yield made, Path(work)
            if self.directory.exists():
                self.directory.rename(Path(work) / "former")
            made.rename(self.directory)

    def _fill(
        self,
        made: Path,
        work: Path,
        archive: Iterable[bytes],
        overlay: Iterable[OverlayEntry],
        removed: Iterable[str],
        disk_gb: int,
    ) -> str:
        """Write disk, kernel and initrd into ``made``; return the kernel's release."""
        root, raw = work / "root", work / "disk.raw"
        root.mkdir(mode=0o755)
        # An ordinary user can't give files away: fakeroot remembers for mke2fs what tar wanted.
        faked = ["fakeroot", "-s", str(work / "owners")] if os.geteuid() else []
        options = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*", "--exclude=dev/*"]
        unpack = [*faked, "tar", "-x", "-p", *options, "-C", str(root)]
        with subprocess.Popen(unpack, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            with contextlib.suppress(BrokenPipeError):  # tar says why it stopped
                for chunk in archive:
                    cast(IO[bytes], process.stdin).write(chunk)
            message = process.communicate()[1].decode(errors="replace")
        if process.returncode:
            raise HpcError(f"The build machine's files can't be unpacked: {message}", "See the message above.")
        lay_over(root, overlay, removed)
        kernel = kernel_of(root)
        place = made if self.boot == "direct" else work
        shutil.copyfile(root / "boot" / f"vmlinuz-{kernel}", place / "vmlinuz")
        (place / "initrd").write_bytes(initrd(root, kernel))
        with raw.open("wb") as disk:
            disk.truncate(disk_gb << 30)
        faked = ["fakeroot", "-i", str(work / "owners")] if os.geteuid() else []
        make = [*faked, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-d", str(root)]
        if self.boot == "efi":
            write_loader(root, work, raw)
            before = FIRST_MIB + LOADER_MIB
            run([*make, "-E", f"offset={before << 20}", str(raw), f"{(disk_gb << 10) - before - FIRST_MIB}M"])
        else:
            run([*make, str(raw)])
        run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(made / DISK)])
        return kernel


def _described(made: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what an image says of itself, and return it."""
    description = {"format": 1, "disk": DISK, **facts}
    (made / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    return description


def _virtual_bytes(disk: Path) -> int:
    """Return the size that a machine sees of a qcow2 disk."""
    with disk.open("rb") as file:
        head = file.read(32)
    if len(head) < 32 or head[:4] != b"QFI\xfb":
        raise HpcError(f"What became of the build machine's disk is no qcow2 image ({len(head)} bytes).", "Try again.")
    return int.from_bytes(head[24:32], "big")


def write_loader(root: Path, files: Path, disk: Path) -> None:
    """Write a partition table to ``disk``, and a partition with the loader of ``root``, and kernel and initrd."""
    if not (root / LOADER).exists():
        raise HpcError(f"The image has no {LOADER}, which starts it.", "Let it have the package systemd-boot-efi.")
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)], PARTITIONS)
    for path, text in LOADER_FILES.items():
        (files / Path(path).name).write_text(text)
    partition = f"{disk}@@{FIRST_MIB}M"
    run(["mformat", "-i", partition, "-F", "-v", "EFI", "-T", str(LOADER_MIB << 11), "-h", "255", "-s", "63", "::"])
    run(["mmd", "-i", partition, "::EFI", "::EFI/BOOT", "::loader", "::loader/entries"])
    copied = {"EFI/BOOT/BOOTX64.EFI": root / LOADER, "vmlinuz": files / "vmlinuz", "initrd": files / "initrd"}
    for path, source in {**copied, **{path: files / Path(path).name for path in LOADER_FILES}}.items():
        run(["mcopy", "-i", partition, str(source), f"::{path}"])


def run(argv: list[str], stdin: str = "") -> None:
    """Run a command that must succeed."""
    done = subprocess.run(argv, input=stdin.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        output = done.stdout.decode(errors="replace").strip()
        raise HpcError(f"{argv[0]} could not make the disk: {output}", "See its message.")
