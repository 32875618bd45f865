# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's own configuration of the hub on the login host."""

c = get_config()  # noqa: F821 # pylint: disable=undefined-variable
c.JupyterHub.template_vars = {"announcement": "Maintenance on Friday"}
