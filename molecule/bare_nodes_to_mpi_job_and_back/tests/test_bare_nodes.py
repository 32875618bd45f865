# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json

import jmespath

NODES = ("head", "node1")

PICTURE = r"""
find /etc /usr /opt /root /home /srv /boot /var -xdev -printf '%M %u:%g %p -> %l\n' | sort
find /etc /usr /opt /root /home /srv /boot /var/lib -xdev -type f -print0 | sort -z | xargs -0 sha256sum
dpkg-query -W -f '${Package} ${Version} ${Status}\n'
getent passwd; getent group
systemctl list-unit-files --no-legend --no-pager | awk '{print $1, $2}' | sort
systemctl list-units --no-legend --no-pager --plain --state=running,failed | awk '{print $1}' | sort
ip -o address | sed 's/ valid_lft.*//'; ip route; hostname; sort /proc/self/mounts
"""

ALLOWED = (
    "/var/lib/apt/",  # package lists are fetched
    "/var/cache/",  # caches of packages and of man, ldconfig and debconf
    "/var/log/",  # logs
    "/var/lib/dpkg/",  # the package data base notes that a package was there
    "/var/backups/",  # dpkg keeps copies of its data base
    "/var/lib/systemd/",  # stamps of timers, and what deb-systemd-helper remembers
    "/var/lib/ucf/",  # the registry of configuration files is rewritten
    "/var/tmp/systemd-private",  # of services that were running
    "/root/.ansible",  # Ansible's own directory on a node
    "/etc/.pwd.lock",  # useradd's lock file
    "/etc/ld.so.cache",  # rebuilt by packages that brought libraries
    "/usr/share/info/dir",  # rebuilt by packages
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "session-",  # the scopes of our own logins
    "user@",
    "user-runtime-dir@",
)
"""What may differ after a reset, each with its reason."""


def picture(site, node):
    lines = site.root(node).run(PICTURE).stdout.splitlines()
    return {line for line in lines if not any(part in line for part in ALLOWED)}


def test_bare_nodes_run_an_mpi_job_and_are_left_as_they_were(make_site):
    bare_site = make_site("bare")
    before = {node: picture(bare_site, node) for node in NODES}

    dry = bare_site.play("site", "--check", "--diff").succeeded()
    assert all(dry.changed[node] for node in NODES)
    assert {node: picture(bare_site, node) for node in NODES} == before

    bare_site.play("site").succeeded()
    bare_site.play("verify").succeeded()
    report = json.loads((bare_site.path / "verify.json").read_text())
    assert sorted(jmespath.search("checks[?name=='mpi_hello'] | [0].detail.ranks[].host", report)) == list(NODES)

    bare_site.root("node1").check_output("su - alice -c 'echo precious >diary'")
    bare_site.play("reset").succeeded()
    assert bare_site.root("node1").check_output("cat /home/alice/diary") == "precious", "user data stays"
    again = bare_site.play("reset").succeeded()
    assert not any(again.changed.values()), again.output

    for node in NODES:
        after = {line for line in picture(bare_site, node) if "/home/alice" not in line}
        assert not after - before[node], f"{node} has what it had not before:\n" + "\n".join(
            sorted(after - before[node])
        )
        assert not before[node] - after, f"{node} lost what it had before:\n" + "\n".join(sorted(before[node] - after))
