# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider and the real SDK on a stand-in, in the stand-in's time, so that nothing really waits."""

from __future__ import annotations

import importlib
from typing import Any

from alibabacloud_tea_openapi.utils_models import Config
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.alicloud import AlicloudProvider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.alicloud_api import PRODUCTS, Api
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud import Timing

from .service import REGION
from .wire import ACCESS_KEY_ID, ACCESS_KEY_SECRET, StandIn

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0lyfbIaVdrqYxFvXjbe7FDuBsuZ0SN9QEJHVT3k9mF operator"


def api_of(endpoint: str) -> Api:
    """Return the calls of the real SDK, sent to a stand-in."""
    config = Config(
        access_key_id=ACCESS_KEY_ID,
        access_key_secret=ACCESS_KEY_SECRET,
        endpoint=endpoint,
        protocol="HTTP",
        region_id=REGION,
    )
    return Api(
        REGION,
        lambda product: importlib.import_module(f"{PRODUCTS[product]}.client").Client(config),
        lambda product: importlib.import_module(f"{PRODUCTS[product]}.models"),
    )


def provider_of(standin: StandIn, **timing: Any) -> AlicloudProvider:
    """Return a provider as a new run has it."""
    clock = standin.account.clock
    times = Timing(clock=clock.now, sleep=clock.advance, **timing)
    return AlicloudProvider(api_of(standin.endpoint), times, reach=lambda _address, _port: None)


def parameters(**changes: Any) -> dict[str, Any]:
    """Return what a user gives for a head and three nodes."""
    cloud = {"region": REGION, "ssh_from": ["203.0.113.7/32"], **changes.pop("cloud", {})}
    common = {"image": "system/debian_12_*", "instance_type": "ecs.c7.large"}
    head = {
        "name": "head",
        "bastion": True,
        "groups": ["controller", "nfs_server"],
        **common,
        **changes.pop("head", {}),
    }
    node = {"name": "node", "count": 3, "groups": ["compute"], **common, **changes.pop("node", {})}
    return {
        "provider": "alicloud",
        "cluster_name": "demo",
        "network": "10.20.0.0/24",
        "machine_sets": [head, node],
        "admin_public_key": PUBLIC_KEY,
        "cloud": cloud,
        **changes,
    }
