# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site must not do: the hub's check names both lines."""

c = get_config()  # noqa: F821 # pylint: disable=undefined-variable
c.JupyterHub.authenticator_class = "dummy"
c.Spawner.start_timeuot = 7
