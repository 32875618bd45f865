# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Written by turnkey.hpc (role jupyterhub). Changes made here are lost; the site's own go to jupyterhub_config_file."""

# pylint: disable=undefined-variable  # JupyterHub gives this file get_config and load_subconfig.
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, "/usr/local/lib/turnkey-jupyterhub")
import turnkey_hub

turnkey_hub.configure(get_config(), json.loads(Path("/etc/jupyterhub/settings.json").read_text()))  # noqa: F821

# Last, so that the site has the last word. turnkey.hpc looks through it before it gets here.
site = os.environ.get("TURNKEY_SITE_CONFIG", "/etc/jupyterhub/site_config.py")
if site and Path(site).exists():
    load_subconfig(site)  # noqa: F821
