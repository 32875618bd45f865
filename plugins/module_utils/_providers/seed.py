# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new virtual machine is told at its first boot: a medium in the format NoCloud. It holds no secret."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .._errors import HpcError

__all__ = ["LABEL", "seed_files", "seed_medium"]

LABEL = "cidata"


def seed_files(
    *,
    instance_id: str,
    hostname: str,
    mac: str,
    address: str,
    gateway: str,
    nameservers: Sequence[str],
    authorized_keys: Sequence[str],
    user_data: str = "",
) -> dict[str, bytes]:
    """Return the files of the medium by their names. Pure.

    A machine with another ``instance_id`` makes itself new keys and identifiers. An empty ``gateway`` leaves it without
    a way out of its network. ``user_data`` is the site's own part; what is said here goes before it.
    """
    config: dict[str, Any] = {
        "hostname": hostname,
        "preserve_hostname": False,
        # Without the first two, cloud-init would lock root and make a user of its own.
        "disable_root": False,
        "users": [],
        "ssh_authorized_keys": list(authorized_keys),
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
        # The console is how the control node learns the host key.
        "ssh": {"emit_keys_to_console": True},
    }
    nic: dict[str, Any] = {"match": {"macaddress": mac}, "dhcp4": False, "addresses": [address]}
    if gateway:
        nic["routes"] = [{"to": "0.0.0.0/0", "via": gateway}]
    if nameservers:
        nic["nameservers"] = {"addresses": list(nameservers)}
    # JSON is YAML, and the image's own first boot needs no YAML.
    files = {
        "meta-data": _json({"instance-id": instance_id, "local-hostname": hostname}),
        "network-config": _json({"version": 2, "ethernets": {"eth0": nic}}),
        "user-data": b"#cloud-config\n" + _json(config),
    }
    if user_data.strip():
        files["vendor-data"] = user_data.encode()
    return files


def seed_medium(files: Mapping[str, bytes]) -> bytes:
    """Return an ISO 9660 image with these files in its top directory."""
    try:
        import pycdlib
    except ImportError as error:
        raise HpcError(
            f"The Python package 'pycdlib' is missing in {sys.executable} ({error}).",
            f"Install it: {sys.executable} -m pip install pycdlib",
        ) from error
    image, packed = pycdlib.PyCdlib(), io.BytesIO()
    # Linux takes the names from Rock Ridge; those of ISO 9660 itself can't have a '-'.
    image.new(interchange_level=3, rock_ridge="1.09", vol_ident=LABEL)
    for number, (name, content) in enumerate(sorted(files.items())):
        image.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", rr_name=name)
    image.write_fp(packed)
    image.close()
    return packed.getvalue()


def _json(value: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(value, indent=1, sort_keys=True)}\n".encode()
