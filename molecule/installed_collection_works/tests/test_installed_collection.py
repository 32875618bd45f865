# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_tarball_installs_into_an_empty_place_and_its_site_playbook_runs_from_there(site, tmp_path):
    environment = {**site.environment(), "ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}

    def run(*argv):
        done = subprocess.run(
            argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    (tarball,) = tmp_path.glob("turnkey-hpc-*.tar.gz")
    run("ansible-galaxy", "collection", "install", str(tarball), "--offline", "--force", "-p", str(tmp_path))
    output = run(*site.command("turnkey.hpc.site", "-v"))
    assert "failed=0" in output
    assert str(tmp_path) in run("ansible-doc", "-t", "module", "turnkey.hpc.packages")
