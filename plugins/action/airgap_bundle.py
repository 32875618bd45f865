# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shows what the module of this name does while it works, which takes minutes; documented with the module."""

from __future__ import annotations

from ansible_collections.turnkey.hpc.plugins.action import cluster_machines


class ActionModule(cluster_machines.ActionModule):
    """Run the module, and print each line that it writes to its progress file."""

    module = "turnkey.hpc.airgap_bundle"
