# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of the stand-ins that are containers on one bridge, with the address, name and key that was asked for."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid

from standins.aws_standin import AwsStandIn, keys_block

FLAGS = [
    *("--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--shm-size=256m"),
    *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined", "--cgroupns=private"),
    *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"),
]


def docker(*arguments: str, stdin: str | None = None) -> str:
    """Run a command of Docker and return what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, input=stdin)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr}")
    return done.stdout


class Containers:
    """The instances of one account, on a network of their own; use it as a context manager."""

    def __init__(self, image: str, bits: int = 24) -> None:
        """``bits`` is the length of the network's prefix."""
        routes = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
        self.image, self.name = image, f"turnkey-e2e-{uuid.uuid4().hex[:6]}"
        self.network = next(f"10.97.{n}.0/{bits}" for n in range(100, 256) if f"10.97.{n}." not in routes)

    def __enter__(self) -> Containers:
        docker("network", "create", "--subnet", self.network, self.name)
        docker("volume", "create", self.name)
        return self

    def __exit__(self, *_error: object) -> None:
        for name in self.names():
            docker("rm", "--force", "--volumes", name)
        docker("network", "rm", self.name)
        docker("volume", "rm", self.name)

    def start(self, identity: str, address: str, user_data: str, key: str = "") -> None:
        """Start an instance. It lets in ``key`` and those of its user data."""
        config = json.loads(base64.b64decode(user_data).decode().partition("\n")[2])
        keys = "".join(f"{one.strip()}\n" for one in (key, *config.get("ssh_authorized_keys", ())) if one)
        name = f"{self.name}-{identity}"
        where = ["--hostname", config.get("hostname", identity), "--network", self.name, "--ip", address]
        docker("create", "--name", name, *where, "--volume", f"{self.name}:/shared", *FLAGS, self.image)
        docker("start", name)
        docker("exec", name, "mkdir", "-p", "-m", "700", "/root/.ssh")
        docker("exec", "-i", name, "sh", "-c", "cat >/root/.ssh/authorized_keys", stdin=keys)

    def remove(self, identity: str) -> None:
        """Remove an instance."""
        docker("rm", "--force", "--volumes", f"{self.name}-{identity}")

    def host_key(self, identity: str) -> str:
        """Return an instance's public host key, or nothing while it boots."""
        try:
            return " ".join(self.run(identity, "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])
        except RuntimeError:
            return ""

    def run(self, identity: str, script: str) -> str:
        """Run a shell script on an instance's console and return what it prints."""
        return docker("exec", f"{self.name}-{identity}", "sh", "-c", script)

    def names(self) -> list[str]:
        """Return the names of the containers that are there."""
        return docker("ps", "--all", "--filter", f"name={self.name}-", "--format", "{{.Names}}").split()


def be_instances_of_ec2(containers: Containers, server: AwsStandIn) -> None:
    """Let an account as new have containers for its instances."""

    def launch(identity: str, params: dict[str, str]) -> None:
        address = params["NetworkInterface.1.PrivateIpAddress"]
        key = server.backend.key_pairs[params["KeyName"]].material_public
        containers.start(identity, address, params["UserData"], key.decode() if isinstance(key, bytes) else key)
        public = server.backend.get_instance(identity).public_ip
        if public:
            server.public_addresses[public] = address

    server.reset()
    server.launched, server.terminated = launch, containers.remove
    server.console = lambda identity: keys_block(key) if (key := containers.host_key(identity)) else ""
