# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster in a stand-in of a cloud, driven by the module's own functions; the same for each cloud."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud import CloudProvider, Timing
from ansible_collections.turnkey.hpc.plugins.modules import cluster_machines

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"
TIMING = Timing(
    poll_seconds=0.02,
    settle_seconds=0.5,
    visible_seconds=3,
    conflict_seconds=6,
    throttle_seconds=6,
    ready_seconds=6,
    base_seconds=0.005,
    cap_seconds=0.05,
)
LONG = bool(os.environ.get("TURNKEY_LONG_TESTS"))
"""Set by `make test-cloud-long`."""


class CutOff(BaseException):
    """The process is gone."""


class Site:
    """One cluster in a stand-in. ``connect`` gives a new provider, as each run of the module has its own."""

    def __init__(self, name: str, provider: str, region: str, connect: Callable[[], CloudProvider]):
        self.cluster, self.name, self.region, self.connect = name, provider, region, connect
        self.image, self.instance_type = "node-*", "t3.small"
        self.volumes: list[dict[str, Any]] = [{"name": "shared", "path": "/shared", "size_gb": 20}]

    def params(self, count: int = 2, cloud: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        kind = {"image": self.image, "instance_type": self.instance_type}
        head = {"name": "head", "groups": ["controller", "login"], "bastion": True, "volumes": self.volumes, **kind}
        node = {"name": "node", "groups": ["compute"], "count": count, **kind}
        given = {
            "provider": self.name,
            "cluster_name": self.cluster,
            "network": "10.20.0.0/24",
            "machine_sets": [{**head, **changes.pop("head", {})}, {**node, **changes.pop("node", {})}],
            "cloud": {"region": self.region, "ssh_from": ["203.0.113.0/24"], "egress": "nat", **(cloud or {})},
            "admin_public_key": KEY,
            "allow_replace": False,
            "confirm": self.cluster,
            "min_free_disk_gb": 2,
            "ready_timeout_seconds": 5,
        }
        return {**given, **changes}

    def present(self, count: int = 2, check: bool = False, provider: CloudProvider | None = None, **changes: Any):
        return cluster_machines.present(self.params(count, **changes), provider or self.connect(), None, check)

    def absent(self, check: bool = False, provider: CloudProvider | None = None, **changes: Any):
        return cluster_machines.absent(self.params(**changes), provider or self.connect(), None, check)

    def until_done(self, step: Callable[[], Any], between_seconds: float) -> int:
        """Repeat a step until it succeeds, as a person would after reading the error; return how often."""
        for attempt in range(1, 30):
            try:
                step()
            except HpcError as error:
                if not str(error):
                    raise AssertionError("an error without words") from error
                time.sleep(between_seconds)  # poll interval: what was made last must be known before the next run
            else:
                return attempt
        raise AssertionError(f"{self.cluster}: no end after {attempt} attempts")


class Faults:
    """Seeded misfortune: what goes wrong with which request."""

    def __init__(self, seed: int, reading: str, launching: str, capacity: str, kinds: tuple[str, ...]):
        self.random = random.Random(seed)
        self.rate, self.left = self.random.choice([0.03, 0.1, 0.25]), self.random.randint(3, 25)
        self.reading, self.launching, self.capacity, self.kinds = reading, launching, capacity, kinds
        self.log: list[str] = []

    def __call__(self, action: str, _params: Any) -> str:
        # A run reads far more often than it changes something, and what fails while it reads is simply read again.
        reading = action.startswith(self.reading)
        if not self.left or self.random.random() > self.rate * (0.1 if reading else 1):
            return ""
        kinds = [kind for kind in self.kinds if not (reading and kind.startswith("after:"))]
        if action == self.launching:
            kinds.append(self.capacity)
        self.left -= 1
        fault = self.random.choice(kinds)
        self.log.append(f"{action}: {fault}")
        return fault
