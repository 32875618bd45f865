# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Roles gpu and docker_engine, as far as a container without a GPU shows them; a small package is the driver."""

import json

ASKED = {
    "docker_engine_install": True,
    "docker_engine_settings": {"log-level": "warn", "iptables": False, "bridge": "none"},
    "gpu_present": True,
    "gpu_driver_packages": ["nvidia-modprobe"],
    "gpu_apt_source": (
        "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\nComponents: contrib\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
    ),
}


def test_docker_and_a_driver_come_where_they_are_asked_for_and_go_again(make_site):
    cluster = make_site("k3s")
    node = cluster.root("node1")
    packages = "dpkg-query -W -f '${Package} ${Status}\n'; ls -R /etc/docker /etc/modprobe.d /etc/apt 2>&1 || true"
    before = node.check_output(packages)
    limit = ("--limit", "node1")
    left_alone = cluster.play("engines", *limit, "-e", '{"gpu_present": true, "gpu_install_driver": false}').succeeded()
    assert not any(left_alone.changed.values()), left_alone.output
    asked = (*limit, "-e", json.dumps(ASKED))
    cluster.play("engines", *asked).succeeded()
    assert (
        node.check_output("dpkg-query -W -f '${Status}' nvidia-modprobe docker.io").count("install ok installed") == 2
    )
    assert node.check_output("docker info -f '{{.ServerVersion}}'")
    assert "blacklist nouveau" in node.check_output("cat /etc/modprobe.d/turnkey-gpu.conf")
    again = cluster.play("engines", *asked).succeeded()
    assert not any(again.changed.values()), again.output
    cluster.play("reset_engines", *asked).succeeded()
    assert node.check_output(packages) == before
