# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The providers by their names. None of them imports its SDK before it connects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .alicloud import AlicloudProvider
from .aws import AwsProvider
from .base import Provider
from .cloud import CloudProvider
from .docker import DockerProvider
from .libvirt import LibvirtProvider

__all__ = ["CLOUD_PROVIDERS", "PROVIDERS", "connect", "connect_cloud"]

Run = Callable[[list[str]], tuple[int, str, str]]

CLOUD_PROVIDERS: dict[str, type[AlicloudProvider] | type[AwsProvider]] = {
    "alicloud": AlicloudProvider,
    "aws": AwsProvider,
}
PROVIDERS = ("docker", *CLOUD_PROVIDERS, "libvirt")


def connect(provider: str, run: Run, params: Mapping[str, Any]) -> Provider:
    """Connect to a provider; ``params`` has an entry ``cloud`` or ``libvirt`` that says where."""
    if provider == "docker":
        return DockerProvider.connect(run)
    if provider == "libvirt":
        return LibvirtProvider.connect(params.get("libvirt") or {}, run)
    return connect_cloud(provider, params.get("cloud") or {})


def connect_cloud(provider: str, cloud: Mapping[str, Any]) -> CloudProvider:
    """Connect to a provider that is a cloud."""
    return CLOUD_PROVIDERS[provider].connect(cloud)
