# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster in a cloud says besides its machines: where it is, who may enter, how its private machines get out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = ["CLOUDS", "EGRESS", "PLACEMENTS", "CloudSpec", "parse_cloud", "set_problems"]

CLOUDS = ("alicloud", "aws")
EGRESS = ("nat", "proxy", "none")
PLACEMENTS = ("cluster", "spread")

# As many as there are letters for disks at AWS; Alibaba Cloud takes 16.
MAX_VOLUMES = 11

# Between what the providers allow: a VPC of AWS has at most a /16, and each half must have room for a few machines.
LARGEST, SMALLEST = 16, 26

_REGION = re.compile(r"[a-z]{2,}(-[a-z0-9]+)+")
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class CloudSpec:
    """The cluster's place in a cloud. An empty ``zone`` or ``login_user`` leaves the choice to the provider."""

    region: str
    public_subnet: str
    private_subnet: str
    ssh_from: tuple[str, ...]
    zone: str = ""
    egress: str = "nat"
    proxy_url: str = ""
    login_user: str = ""
    user_data: str = ""
    remove_foreign_rules: bool = False

    def subnet(self, name: str) -> str:
        """Return the network of the subnet ``public`` or ``private``."""
        return self.public_subnet if name == "public" else self.private_subnet


def parse_cloud(
    provider: str, given: Mapping[str, Any], network: ipaddress.IPv4Network | None, problems: list[str]
) -> CloudSpec | None:
    """Return the cluster's place in a cloud, None for a provider that is none; add what is wrong to ``problems``."""
    if provider not in CLOUDS:
        return None
    region = str(given.get("region") or "")
    if not _REGION.fullmatch(region):
        problems.append(f"cluster_cloud.region {region!r} is not a region: give one, for example eu-central-1.")
    zone = str(given.get("zone") or "")
    if zone and not zone.startswith(region):
        problems.append(f"cluster_cloud.zone {zone!r} is not in region {region!r}: give a zone of it, or leave it out.")
    egress, proxy_url = str(given.get("egress") or "nat"), str(given.get("proxy_url") or "")
    problems.extend(_egress_problems(egress, proxy_url))
    login = str(given.get("login_user") or "")
    if login and not _LOGIN.fullmatch(login):
        problems.append(f"cluster_cloud.login_user {login!r} is not a user name: give that of the image, as in debian.")
    sources = _sources([str(item) for item in given.get("ssh_from") or ()], problems)
    public = private = ""
    if network is not None:
        if not LARGEST <= network.prefixlen <= SMALLEST:
            problems.append(
                f"network {network} can't be a cloud's: give one of /{LARGEST} to /{SMALLEST}; "
                "its lower half is for the bastion, its upper half for all other machines."
            )
        public, private = (str(half) for half in network.subnets(prefixlen_diff=1))
    return CloudSpec(
        region=region,
        zone=zone,
        public_subnet=public,
        private_subnet=private,
        ssh_from=sources,
        egress=egress,
        proxy_url=proxy_url,
        login_user=login,
        user_data=str(given.get("user_data") or ""),
        remove_foreign_rules=bool(given.get("remove_foreign_rules")),
    )


def _egress_problems(egress: str, proxy_url: str) -> list[str]:
    if egress not in EGRESS:
        return [f"cluster_cloud.egress {egress!r} is unknown: give one of {', '.join(EGRESS)}."]
    if egress != "proxy":
        return [f"cluster_cloud.proxy_url is for egress: proxy, and egress is {egress}."] if proxy_url else []
    parts = urlsplit(proxy_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return [f"cluster_cloud.proxy_url {proxy_url!r} is not a URL: give one, for example http://10.20.0.10:3128."]
    if parts.password:
        # It would be in the user data, which every process of a machine may read.
        return ["cluster_cloud.proxy_url has a password in it: use a proxy that knows its clients by their addresses."]
    return []


def _sources(given: list[str], problems: list[str]) -> tuple[str, ...]:
    """Return the networks that may log in, normalised."""
    found = set()
    for text in given:
        try:
            found.add(str(ipaddress.IPv4Network(text)))
        except ValueError:
            problems.append(
                f"cluster_cloud.ssh_from: {text!r} is not an IPv4 network: give for example 203.0.113.7/32 for a host."
            )
    if not given:
        problems.append(
            "cluster_cloud.ssh_from is empty: give the networks that may log in to the bastion, "
            "for example [203.0.113.7/32] with your own address."
        )
    return tuple(sorted(found))


def set_problems(item: Mapping[str, Any], where: str, cloud: bool) -> list[str]:
    """Return which options of a set of machines don't fit the kind of provider."""
    for_clouds, for_engines = ("instance_type", "root_gb", "spot", "placement"), ("cpus", "memory_mb")
    if not cloud:
        return [f"{where}: {name} is for clouds: remove it." for name in for_clouds if item.get(name)]
    problems = [f"{where}: {name} is for Docker: choose an instance_type." for name in for_engines if item.get(name)]
    if not item.get("instance_type"):
        problems.append(f"{where}: instance_type is missing: give the kind of machine, as the cloud calls it.")
    placement = item.get("placement")
    if placement and placement not in PLACEMENTS:
        problems.append(f"{where}: placement {placement!r} is unknown: give one of {', '.join(PLACEMENTS)}.")
    if int(item.get("root_gb") or 0) < 0:
        problems.append(f"{where}: root_gb {item['root_gb']} is negative: leave it out for the size of the image.")
    if len(item.get("volumes") or ()) > MAX_VOLUMES:
        problems.append(f"{where}: {len(item['volumes'])} volumes are too many: give at most {MAX_VOLUMES}.")
    problems.extend(
        f"{where}: volume {volume.get('name')!r}: size_gb is missing: give its size in GB."
        for volume in item.get("volumes") or ()
        if int(volume.get("size_gb") or 0) < 1
    )
    return problems
