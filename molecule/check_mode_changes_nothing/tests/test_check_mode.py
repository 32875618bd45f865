# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

PICTURE = (
    "find /etc /usr/local /var/lib/turnkey -xdev -type f -print0 2>/dev/null | sort -z | xargs -0 sha256sum; dpkg -l"
)


def pictures(site):
    return {node: site.root(node).run(PICTURE).stdout for node in ("head", "node2")}


def test_a_dry_run_on_unconfigured_nodes_shows_the_changes_and_makes_none(site):
    site.play("reset").succeeded()
    before = pictures(site)
    run = site.play("site", "--check", "--diff").succeeded()
    assert "BEGIN turnkey.hpc" in run.output, "the diff shows the block for /etc/hosts"
    assert all(run.changed[node] for node in before)
    assert pictures(site) == before


def test_a_dry_run_on_configured_nodes_finds_nothing_to_do(site):
    site.play("site").succeeded()
    before = pictures(site)
    run = site.play("site", "--check", "--diff").succeeded()
    assert not any(run.changed.values()), run.output
    assert pictures(site) == before
