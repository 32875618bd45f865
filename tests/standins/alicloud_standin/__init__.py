# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for Alibaba Cloud's ECS and VPC services, for tests. It is not the cloud, and no emulator by its maker.

It speaks the wire protocol that the real SDK speaks, refuses what the SDK's own request models don't know, and keeps
the states, limits and dependencies that the SDK's documentation tells. What it does where that documentation is silent
(names of error codes, length of delays) is our reading; a green test proves that we agree with it, not with the cloud.

    python -m alicloud_standin --port 0          # in tests/standins; prints one line of JSON with the port

``StandIn`` is the same server within a test's process.
"""

from __future__ import annotations

from .faults import Fault, Faults
from .service import Clock, Limits
from .wire import ACCESS_KEY_ID, ACCESS_KEY_SECRET, StandIn

__all__ = ["ACCESS_KEY_ID", "ACCESS_KEY_SECRET", "Clock", "Fault", "Faults", "Limits", "StandIn"]
