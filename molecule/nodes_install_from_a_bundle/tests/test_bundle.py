# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

import json

import pytest

NODES = ("head", "node1")
REGISTRY = "10.213.88.10:5000"


@pytest.fixture
def airgap(make_site, write_image):
    site = make_site("airgap")
    given = site.path / ".given"
    write_image(given / "mini.tar")
    (given / "k3s").write_text("not the real one\n")
    (given / "configurable-http-proxy-4.6.3.tgz").write_text("no real one either\n")
    return site


def skopeo(head, *arguments):
    """Run skopeo on the head with the registry's own certificates, as its administrator."""
    return head.run(f"skopeo {' '.join(arguments)}")


def test_nodes_install_from_a_bundle_and_from_nowhere_else(airgap, quarantine, tmp_path):
    airgap.play("bundle").succeeded()
    bundle = airgap.path / ".bundle"
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {"chrony", "nginx", "docker-registry", "openmpi-bin"} <= {file["name"] for file in manifest["files"]}

    nodes = quarantine("airgap", NODES)
    nodes.close("10.213.88.0/24")
    airgap.root("node1").run("timeout 2 bash -c 'echo >/dev/tcp/192.0.2.1/80'")
    airgap.root("node1").run("timeout 3 getent hosts deb.debian.org")
    assert {"node1: 192.0.2.1 tcp 80", "node1: 192.0.2.53 udp 53"} <= nodes.attempts(), "an attempt is noticed"
    nodes.close("10.213.88.0/24")
    before = {node: airgap.picture(node) for node in NODES}

    package = next(bundle.glob("apt/pool/*/nginx_*.deb"))
    good = package.read_bytes()
    package.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    refused = airgap.play("site")
    assert refused.code != 0
    assert f"{package.relative_to(bundle)} was altered" in refused.output
    assert not any(refused.changed.values()), refused.output
    package.write_bytes(good)
    other = airgap.play("mirror", "-e", "mirror_release=11")
    assert other.code != 0
    assert "and its mirror_release and mirror_architecture say 11 amd64" in " ".join(other.output.split())
    assert not any(other.changed.values()), other.output

    # The dry run of all of site.yml is in no_internet_at_all.
    dry = airgap.play("mirror", "--check", "--diff").succeeded()
    assert all(dry.changed[node] for node in NODES)
    assert {node: airgap.picture(node) for node in NODES} == before

    airgap.play("site").succeeded()
    second = airgap.play("site").succeeded()
    assert not any(second.changed.values()), second.output
    sources = airgap.root("node1").check_output("apt-get update --print-uris")
    assert "https://10.213.88.10:8443/apt" in sources
    assert "deb.debian.org" not in sources
    for path, content in (
        ("files/k3s/v1.33.4+k3s1/k3s", "not the real one"),
        ("npm/configurable-http-proxy-4.6.3.tgz", "no real one either"),
    ):
        fetch = f"/usr/lib/apt/apt-helper download-file https://10.213.88.10:8443/{path} /tmp/x"
        assert airgap.root("node1").check_output(f"{fetch} >/dev/null && cat /tmp/x && rm /tmp/x") == content

    check_registry(airgap, manifest, tmp_path)
    assert nodes.attempts() == set(), "nothing tried to leave"

    airgap.play("reset").succeeded()
    assert "deb.debian.org" in airgap.root("node1").check_output("apt-get update --print-uris")
    images = "/srv/turnkey-registry"
    for node in NODES:
        # The images stay, and so does the note that their directory was made for them.
        stays = (images, "/var/lib/turnkey") if node == "head" else ()
        after = {line for line in airgap.picture(node) if not any(part in line for part in stays)}
        assert after == before[node], f"{node}: {sorted(after ^ before[node])}"
    assert airgap.root("head").file(f"{images}/docker").is_directory, "images are data"
    airgap.play("reset", "--limit", "head", "-e", "reset_wipe_data=true", "-e", "reset_confirm=airgap").succeeded()
    assert airgap.picture("head") == before["head"], "and go only if that is confirmed"


def check_registry(site, manifest, tmp_path):
    """Use the registry as a user does, and as a stranger would."""
    head = site.root("head")
    password = (site.path / ".secrets/container_registry/password").read_text().strip()
    assert len(password) == 32
    head.run("install -d -m 0700 /root/.registry/ca /root/.registry/foreign")
    head.check_output("cp /etc/turnkey/ca.crt /root/.registry/ca/ca.crt")
    foreign = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=foreign -keyout /dev/null"
    head.check_output(f"{foreign} -out /root/.registry/foreign/ca.crt")
    for name, secret in (("good", password), ("wrong", "wrong")):
        login = (
            f"skopeo login --authfile /root/.registry/{name} --cert-dir /root/.registry/ca -u turnkey --password-stdin"
        )
        assert head.run(f"printf %s '{secret}' | {login} {REGISTRY}").succeeded == (name == "good")
    trusted = "--authfile /root/.registry/good --cert-dir /root/.registry/ca"

    (image,) = [file for file in manifest["files"] if file["kind"] == "image"]
    source = f"docker://{REGISTRY}/turnkey/mini"
    found = json.loads(skopeo(head, "inspect", trusted, f"{source}:1").stdout)
    assert found["Digest"] == image["digest"], "the image of the bundle is there with its digest"

    copy = skopeo(head, "copy", "--src-cert-dir /root/.registry/ca --dest-cert-dir /root/.registry/ca",
                  "--authfile /root/.registry/good", f"{source}:1", f"docker://{REGISTRY}/mine:2")  # fmt: skip
    assert copy.succeeded, copy.stderr
    pulled = skopeo(head, "copy", "--src-cert-dir /root/.registry/ca --authfile /root/.registry/good",
                    f"docker://{REGISTRY}/mine:2", "dir:/root/.registry/pulled")  # fmt: skip
    assert pulled.succeeded, pulled.stderr
    for options, problem in (
        ("--no-creds --cert-dir /root/.registry/ca", "authentication required"),
        (
            "--authfile /root/.registry/good --cert-dir /root/.registry/foreign",
            "certificate signed by unknown authority",
        ),
    ):
        refused = skopeo(head, "inspect", options, f"{source}:1")
        assert refused.failed
        assert problem in refused.stderr

    # The blobs of an image that is deleted go with the next collection of garbage; what is in use stays.
    blobs = "find /srv/turnkey-registry/docker/registry/v2/blobs -name data | wc -l"
    before = int(head.check_output(blobs))
    add = skopeo(head, "copy", "--dest-cert-dir /root/.registry/ca --authfile /root/.registry/good",
                 "--format v2s2", "dir:/root/.registry/pulled", f"docker://{REGISTRY}/mine:3")  # fmt: skip
    assert add.succeeded, add.stderr
    assert int(head.check_output(blobs)) > before
    assert skopeo(head, "delete", trusted, f"docker://{REGISTRY}/mine:3").succeeded
    head.check_output("systemctl start docker-registry-garbage.service")
    assert int(head.check_output(blobs)) == before
    # poll interval: 0.2 s
    answers = f"timeout 30 sh -c 'until skopeo inspect {trusted} {source}:1; do sleep 0.2; done'"
    assert head.run(answers).succeeded, "the registry is back, with its images"

    assert head.file("/etc/docker/registry/turnkey/htpasswd").mode == 0o640
    assert password not in head.check_output("ps -eo args; journalctl --no-pager; cat /etc/docker/registry/*.yml")
    head.check_output("rm -r /root/.registry")
    head.run("rmdir /root/.config/containers /root/.config; rm -rf /run/containers /var/lib/containers")
