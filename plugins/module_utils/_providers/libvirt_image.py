# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden images of virtual machines as they lie on the control node, and their copies on a hypervisor."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .._errors import HpcError
from .libvirt_api import Pool

__all__ = ["VmImage", "put_image", "read_image", "start_of", "unused_images", "volume_names"]

DESCRIPTION = "image.json"
DISK, KERNEL, INITRD, COMPLETE = "qcow2", "vmlinuz", "initrd", "complete"
_VERSION = re.compile(r"[0-9a-f]{12,64}")
_OURS = re.compile(r"image-([0-9a-f]{16})\.(?:qcow2|vmlinuz|initrd|complete)")
_QCOW2 = b"QFI\xfb"
_REMEDY = "Build it (ansible-playbook -i INVENTORY turnkey.hpc.image), or correct `image`."


@dataclass(frozen=True)
class VmImage:
    """An image. ``version`` changes with its content; without a kernel the disk boots by its own loader.

    ``waiting`` is what its kernel is told for a machine that waits for its seed in memory; empty if it can't.
    ``firmware`` is efi where the loader needs that.
    """

    version: str
    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    waiting: str = ""
    firmware: str = ""

    def files(self) -> dict[str, Path]:
        """Return the files by what they are called on a hypervisor."""
        found = {DISK: self.disk, KERNEL: self.kernel, INITRD: self.initrd}
        return {kind: path for kind, path in found.items() if path is not None}


def read_image(text: str, remedy: str = _REMEDY) -> VmImage:
    """Return the image at a path: a directory that image.yml wrote, or a qcow2 file that boots by itself."""
    # The link to the newest image may change while one is copied.
    path = Path(text).expanduser().resolve()
    if path.is_dir():
        return _read_directory(path, remedy)
    if not path.is_file():
        raise HpcError(f"image {text} does not exist.", remedy)
    _check_disk(path, remedy)
    found = path.stat()
    return VmImage(_short(f"{path} {found.st_size} {found.st_mtime_ns}"), path)


def start_of(image: VmImage) -> dict[str, str | None]:
    """Return what another image says that starts as this one does, and whose files are called as on a hypervisor."""
    return {
        "kernel": KERNEL if image.kernel else None,
        "initrd": INITRD if image.initrd else None,
        "cmdline": image.cmdline,
        **({"waiting": image.waiting} if image.waiting else {}),
        **({"firmware": image.firmware} if image.firmware else {}),
    }


def volume_names(image: VmImage) -> dict[str, str]:
    """Return the names of the image's volumes on a hypervisor."""
    return {kind: f"image-{image.version}.{kind}" for kind in image.files()}


def put_image(pool: Pool, image: VmImage) -> None:
    """Copy an image to a hypervisor, unless it is there. One that was cut off is not taken for whole."""
    complete = f"image-{image.version}.{COMPLETE}"
    pool.refresh()
    if complete in pool.names():
        return
    for kind, path in image.files().items():
        name = f"image-{image.version}.{kind}"
        length = path.stat().st_size
        pool.create(name, length)
        with path.open("rb") as content:
            pool.upload(name, content, length)
    pool.create(complete, 512)
    pool.refresh()  # the volume that was made as raw is a qcow2 image now


def unused_images(names: Iterable[str], used: Iterable[str]) -> list[str]:
    """Return which of the volumes are of images that no machine has. Pure."""
    keep = set(used)
    found = ((name, _OURS.fullmatch(name)) for name in names)
    return [name for name, match in found if match and match[1] not in keep]


def _read_directory(path: Path, remedy: str) -> VmImage:
    try:
        given = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        version, cmdline, waiting = str(given["hash"]), str(given["cmdline"]), str(given.get("waiting") or "")
        files = {kind: _file(path, given.get(kind)) for kind in ("disk", "kernel", "initrd")}
    except FileNotFoundError:
        raise HpcError(f"image {path} has no {DESCRIPTION}: it is no image, or half of one.", remedy) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HpcError(f"image {path}: {DESCRIPTION} can't be used ({error!r}).", remedy) from error
    if not _VERSION.fullmatch(version):
        raise HpcError(f"image {path}: hash {version!r} in {DESCRIPTION} is not one.", remedy)
    missing = [str(file) for file in files.values() if file and not file.is_file()]
    if missing or files["disk"] is None:
        raise HpcError(f"image {path} lacks {', '.join(missing) or 'a disk'}.", remedy)
    _check_disk(files["disk"], remedy)
    firmware = str(given.get("firmware") or "")
    if firmware not in ("", "efi"):
        raise HpcError(f"image {path}: firmware {firmware!r} in {DESCRIPTION} is unknown.", remedy)
    return VmImage(_short(version), files["disk"], files["kernel"], files["initrd"], cmdline, waiting, firmware)


def _file(directory: Path, name: object) -> Path | None:
    """Return a file of the image; it lies in its directory, and nowhere else."""
    if not name:
        return None
    if str(name) != Path(str(name)).name:
        raise ValueError(f"{name!r} is not the name of a file")
    return directory / str(name)


def _check_disk(path: Path, remedy: str) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise HpcError(f"image {path} can't be read: {os.strerror(error.errno or 0)}.", remedy) from error
    if head[:4] != _QCOW2:
        raise HpcError(f"image {path} is not in the format qcow2.", "Convert it: qemu-img convert -O qcow2 FROM TO")
    if any(head[8:16]):
        raise HpcError(
            f"image {path} needs another file (a backing file).", "Flatten it: qemu-img convert -O qcow2 FROM TO"
        )


def _short(text: str) -> str:
    return text[:16] if len(text) >= 16 and _VERSION.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:16]
