# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hubs on the shared cluster: the first test that asks for them puts them on."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

HUBS = Path(__file__).resolve().parents[2] / "shared/notebooks/hub.yml"
HOSTS = ("head", "login1")
KEPT = pytest.StashKey()
OTHERS = ("/home/", "/var/lib/mysql", "/var/spool/slurm", "/var/lib/slurm", "/var/lib/nfs", "/var/lib/turnkey/mpi")


class Hubs:
    """The cluster with the hubs of molecule/shared/notebooks, and what its hosts looked like without."""

    def __init__(self, site):
        """Put them on; first only say what that would change."""
        self.site = site
        site.play("site").succeeded()
        self.before = self.pictures()
        self.dry = self.play("jupyterhub", "--check", "--diff").succeeded()
        self.traces = site.root("head").run("ls -d /etc/*jupyter* /etc/*/*jupyter* /var/lib/jupyter*").stdout
        self.play("jupyterhub").succeeded()

    def pictures(self):
        """Return what there is to see of the hubs' hosts, but for what users make and what Slurm writes as it runs."""

        def take(node):
            return {line for line in self.site.picture(node) if not any(part in line for part in OTHERS)}

        with ThreadPoolExecutor() as pool:
            return dict(zip(HOSTS, pool.map(take, HOSTS), strict=True))

    def play(self, playbook, *arguments):
        """Run a playbook with the hubs in the inventory."""
        return self.site.play(playbook, "-i", str(HUBS), *arguments)


@pytest.fixture
def hubs(site, request):
    """Return the hubs, which are put on once."""
    stash = request.config.stash
    if KEPT not in stash:
        stash[KEPT] = None
        stash[KEPT] = Hubs(site)
    assert stash[KEPT], "The hubs could not be put on; the first test that failed says why."
    return stash[KEPT]
