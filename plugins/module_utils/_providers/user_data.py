# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a new machine of a cloud is told at its first boot. Every process of the machine may read it: no secrets."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from .._errors import InvalidInput

__all__ = ["mount_unit", "render_user_data", "user_data_problems"]

CLOUD_CONFIG = "#cloud-config"
# The user's part adds to ours and overrides nothing of it.
MERGE = "list(append)+dict(no_replace,recurse_list,recurse_dict)+str()"


def render_user_data(
    hostname: str,
    volumes: Mapping[str, str],
    proxy_url: str,
    extra: str,
    limit_bytes: int,
    authorized_key: str = "",
) -> bytes:
    """Return user data, compressed if it is longer than the provider takes. Pure.

    ``volumes`` maps paths to devices, which may appear long after the boot. An empty ``hostname`` leaves the name to
    the provider. ``extra`` is the site's own part: a script or a cloud-config. ``authorized_key`` may log in as the
    image's user, for providers whose key pairs can't have it.
    """
    config: dict[str, Any] = {
        # The console is how the control node learns the host key: see CloudProvider.host_keys.
        "ssh": {"emit_keys_to_console": True},
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
    }
    if authorized_key:
        config["ssh_authorized_keys"] = [authorized_key]
        config["ssh_pwauth"] = False
    if hostname:
        config["hostname"] = hostname
        config["preserve_hostname"] = False
    files, commands = [], []
    if proxy_url:
        config["apt"] = {"http_proxy": proxy_url, "https_proxy": proxy_url}
        lines = [f"{name}={proxy_url}" for name in ("http_proxy", "https_proxy")]
        files.append({"path": "/etc/environment", "append": True, "content": "".join(f"{line}\n" for line in lines)})
    if volumes:
        # systemd makes a file system where there is none, waits for the device, and does not hold up the boot for it.
        options = "defaults,nofail,x-systemd.makefs,x-systemd.device-timeout=0"
        lines = [f"{device} {path} ext4 {options} 0 2" for path, device in sorted(volumes.items())]
        files.append({"path": "/etc/fstab", "append": True, "content": "".join(f"{line}\n" for line in lines)})
        commands.append(["systemctl", "daemon-reload"])
        commands.append(["systemctl", "--no-block", "start", *(mount_unit(path) for path in sorted(volumes))])
    if files:
        config["write_files"] = files
    if commands:
        config["runcmd"] = commands
    # JSON is YAML.
    text = f"{CLOUD_CONFIG}\n{json.dumps(config, indent=1, sort_keys=True)}\n"
    data = (_together(text, extra) if extra.strip() else text).encode()
    if len(data) > limit_bytes:
        packed = gzip.compress(data, mtime=0)
        if len(packed) > limit_bytes:
            raise InvalidInput(
                f"cluster_cloud.user_data is too long: with it, {hostname or 'a machine'} gets {len(data)} bytes, "
                f"{len(packed)} compressed, and the provider takes {limit_bytes}.",
                "Put what is long into the image, or fetch it from there.",
            )
        return packed
    return data


def user_data_problems(extra: str) -> list[str]:
    """Return what is wrong with the site's own part."""
    if not extra.strip() or extra.startswith((f"{CLOUD_CONFIG}\n", "#!")):
        return []
    first = extra.splitlines()[0]
    return [
        f"cluster_cloud.user_data begins with {first!r}: begin it with '{CLOUD_CONFIG}', or with '#!' and a program."
    ]


def mount_unit(path: str) -> str:
    """Return the name of systemd's unit for a mount point."""
    parts = [part for part in path.split("/") if part]
    return "-".join(part.replace("-", "\\x2d") for part in parts) + ".mount"


def _together(config: str, extra: str) -> str:
    kind = "x-shellscript" if extra.startswith("#!") else "cloud-config"
    boundary = "turnkey-" + hashlib.sha256(extra.encode()).hexdigest()[:16]
    parts = [_part("cloud-config", config, []), _part(kind, extra, [f"X-Merge-Type: {MERGE}"])]
    head = f'Content-Type: multipart/mixed; boundary="{boundary}"\nMIME-Version: 1.0\n\n'
    return head + "".join(f"--{boundary}\n{part}\n" for part in parts) + f"--{boundary}--\n"


def _part(kind: str, text: str, headers: list[str]) -> str:
    lines = [f'Content-Type: text/{kind}; charset="utf-8"', "MIME-Version: 1.0", "Content-Transfer-Encoding: 8bit"]
    return "\n".join([*lines, *headers, "", text])
