# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import json
import random

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.user_data import (
    mount_unit,
    render_user_data,
    user_data_problems,
)


def rendered(hostname="node1", volumes=None, proxy_url="", extra="", limit=16384) -> str:
    return render_user_data(hostname, volumes or {}, proxy_url, extra, limit).decode()


def config(text: str) -> dict:
    first, _newline, rest = text.partition("\n")
    assert first == "#cloud-config"
    return json.loads(rest)


def test_a_machine_gets_its_name_and_shows_its_host_key_on_the_console():
    assert config(rendered()) == {
        "hostname": "node1",
        "preserve_hostname": False,
        "ssh": {"emit_keys_to_console": True},
        "ssh_deletekeys": True,
        "ssh_genkeytypes": ["ed25519"],
    }


def test_a_volume_is_formatted_if_new_and_mounted_when_it_comes():
    found = config(rendered(volumes={"/srv/my-data": "/dev/disk/by-id/x"}))
    assert found["write_files"] == [
        {
            "path": "/etc/fstab",
            "append": True,
            "content": "/dev/disk/by-id/x /srv/my-data ext4 "
            "defaults,nofail,x-systemd.makefs,x-systemd.device-timeout=0 0 2\n",
        }
    ]
    assert found["runcmd"][1] == ["systemctl", "--no-block", "start", "srv-my\\x2ddata.mount"]


def test_a_proxy_is_for_apt_and_for_everybody():
    found = config(rendered(proxy_url="http://10.0.0.10:3128"))
    assert found["apt"]["http_proxy"] == "http://10.0.0.10:3128"
    assert "https_proxy=http://10.0.0.10:3128\n" in found["write_files"][0]["content"]


@pytest.mark.parametrize(
    ("extra", "kind"), [("#!/bin/sh\necho hi\n", "x-shellscript"), ("#cloud-config\nruncmd: [x]\n", "cloud-config")]
)
def test_the_sites_own_part_comes_second_and_adds_only(extra, kind):
    text = rendered(extra=extra)
    assert text.startswith("Content-Type: multipart/mixed; boundary=")
    assert text.index("hostname") < text.index(f"text/{kind}", text.index("hostname")) < text.index(extra)
    assert "X-Merge-Type: list(append)+dict(no_replace" in text


def test_the_same_input_gives_the_same_bytes():
    assert rendered(extra="#!/bin/sh\n") == rendered(extra="#!/bin/sh\n")


def test_what_is_too_long_is_compressed_and_what_then_still_is_an_error_with_the_sizes():
    long = "#!/bin/sh\n" + "# again and again\n" * 1000
    packed = render_user_data("a", {}, "", long, 2000)
    assert long in gzip.decompress(packed).decode()
    noise = "#!/bin/sh\n# " + random.Random(1).randbytes(4000).hex()
    with pytest.raises(InvalidInput, match=r"node1 gets [0-9]+ bytes, [0-9]+ compressed, and the provider takes 2000"):
        rendered(extra=noise, limit=2000)


@pytest.mark.parametrize(
    ("text", "fine"), [("", True), ("#!/bin/sh\n", True), ("#cloud-config\na: b", True), ("hi", False)]
)
def test_only_what_cloud_init_knows_is_accepted(text, fine):
    assert (user_data_problems(text) == []) is fine


@pytest.mark.parametrize(
    ("path", "unit"), [("/shared", "shared.mount"), ("/a/b", "a-b.mount"), ("/a-b", "a\\x2db.mount")]
)
def test_mount_units_are_called_as_systemd_calls_them(path, unit):
    assert mount_unit(path) == unit


def test_a_key_is_let_in_and_passwords_are_not_where_the_provider_has_no_key_pair_for_it():
    text = render_user_data("node1", {}, "", "", 32768, "ssh-ed25519 AAAA operator").decode()
    config = json.loads(text.partition("\n")[2])
    assert config["ssh_authorized_keys"] == ["ssh-ed25519 AAAA operator"]
    assert config["ssh_pwauth"] is False
    assert "ssh_authorized_keys" not in render_user_data("node1", {}, "", "", 32768).decode()
