# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The whole of site.yml where nothing leads out. For k3s a stand-in stands; no Kubernetes runs here."""

import functools
import json
import os
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import jmespath
import pytest

NODES = ("head", "node1")


@pytest.fixture
def site(make_site, write_image):
    site = make_site("isolated")
    write_image(site.path / ".given/mini.tar")
    maker = site.path.parents[2] / "tests/standins/k3s_release.py"
    subprocess.run([sys.executable, maker, site.path / ".k3s", "v1.34.2+k3s1"], check=True, capture_output=True)
    return site


def test_bare_nodes_become_the_whole_cluster_without_internet_and_are_left_as_they_were(site, quarantine):
    site.play("bundle").succeeded()
    unchanged = site.play("bundle").succeeded()
    assert not any(unchanged.changed.values()), unchanged.output
    nodes = quarantine("isolated", NODES)
    nodes.close("10.213.89.0/24")
    before = {node: site.picture(node) for node in NODES}

    dry = site.play("site", "--check", "--diff").succeeded()
    assert all(dry.changed[node] for node in NODES)
    assert {node: site.picture(node) for node in NODES} == before

    site.play("site").succeeded()
    site.play("verify").succeeded()
    report = json.loads((site.path / "verify.json").read_text())
    for check in ("mpi_hello", "slurm_mpi"):
        hosts = jmespath.search(f"checks[?name=='{check}'] | [0].detail.ranks[].host", report)
        assert sorted(hosts) == list(NODES), check
    assert {check["name"] for check in report["checks"] if check["ok"]} >= {"jupyterhub"}
    listed = json.loads(site.root("head").check_output("k3s kubectl get nodes -o json"))
    assert sorted(node["metadata"]["name"] for node in listed["items"]) == list(NODES)
    for node in NODES:
        pulled = site.root(node).run("k3s crictl pull registry.example.org/turnkey/mini:1")
        assert pulled.succeeded, f"{node}: {pulled.stderr}"
    second = site.play("site").succeeded()
    assert not any(second.changed.values()), second.output
    assert nodes.attempts() == set(), "nothing tried to leave"

    site.play("reset").succeeded()
    last = site.play("reset").succeeded()
    assert not any(last.changed.values()), last.output
    for node in NODES:
        data = ["/home/alice", "/var/backups/slurm", "/srv/turnkey-registry"]
        # The note that the directory of the images was made for them stays with them.
        data += ["/var/lib/turnkey"] if node == "head" else []
        after = {line for line in site.picture(node) if not any(part in line for part in data)}
        assert after == before[node], f"{node}: {sorted(after ^ before[node])}"
    assert nodes.attempts() == set(), "nothing tried to leave while it was taken off"


class Proxy(SimpleHTTPRequestHandler):
    """Serves a directory as the web server and the proxy of a site would."""

    def translate_path(self, path):
        return super().translate_path(path.removeprefix("http://mirror.example.org"))

    def log_message(self, *arguments):
        self.server.seen.append(self.path)


@pytest.fixture
def proxy(site):
    """Serve the bundle to the nodes; return where, and what was asked for."""
    site.play("bundle").succeeded()
    handler = functools.partial(Proxy, directory=str(site.path / ".bundle"))
    with ThreadingHTTPServer(("10.213.89.1", 0), handler) as server:
        server.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://10.213.89.1:{server.server_port}", server.seen
        server.shutdown()


def test_a_mirror_and_a_proxy_of_ones_own_are_used_and_forgotten(site, quarantine, proxy, tmp_path):
    address, seen = proxy
    node, nodes = site.root("node1"), quarantine("isolated", NODES)
    nodes.close("10.213.89.0/24")
    # Whatever the test before left.
    site.play("reset_mirror").succeeded()
    before, picture = node.check_output("apt-get update --print-uris"), site.picture("node1")
    key = (site.path / ".bundle/bundle.asc").read_text()
    node.check_output("printf %%s %s >/usr/share/keyrings/own.asc", key)
    own = {
        "cluster_bundle": "",
        "mirror_own_sources": [
            "deb [signed-by=/usr/share/keyrings/own.asc] http://mirror.example.org/apt bookworm main"
        ],
        "mirror_own_index": f"{address}/wheels/debian12/simple",
        "mirror_apt_proxy": address,
    }

    def use(**settings):
        arguments = ("--limit", "node1", "-e", json.dumps(settings))
        site.play("mirror", *arguments).succeeded()
        second = site.play("mirror", *arguments).succeeded()
        assert not any(second.changed.values()), second.output

    # Its own sources don't answer, and need not. There is no name server here either.
    site.play("preflight", "-e", json.dumps({**own, "preflight_look_up_names": False})).succeeded()
    use(**own)
    node.check_output("apt-get update && apt-get install --yes --download-only nginx && apt-get clean")
    assert "http://mirror.example.org/apt/dists/bookworm/InRelease" in seen
    assert any(path.startswith("http://mirror.example.org/apt/pool/bookworm/nginx_") for path in seen)
    (tmp_path / "pip.conf").write_text(node.check_output("cat /etc/pip.conf"))
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "jupyterhub"]
    options = ["--python-version=3.11", "--only-binary=:all:", "--trusted-host=10.213.89.1"]
    subprocess.run([*pip, *options], check=True, env={**os.environ, "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")})
    assert list(tmp_path.glob("jupyterhub-*.whl")), "pip got it from the index"
    site.play("reset_mirror").succeeded()

    use(cluster_bundle="", mirror_apt_proxy=address)
    assert node.check_output("apt-get update --print-uris") == before, "a proxy alone changes no source"
    assert address in node.check_output("apt-config dump Acquire::https::Proxy")
    site.play("reset_mirror").succeeded()
    node.check_output("rm /usr/share/keyrings/own.asc")
    assert site.picture("node1") == picture
    assert nodes.attempts() == set(), "nothing tried to leave"


def test_a_control_node_is_made_from_the_bundle_without_a_network(site, tmp_path):
    site.play("bundle").succeeded()
    bundle, home = site.path / ".bundle", tmp_path / "cluster"
    # The package `ansible`, which has the other collections, takes a minute to unpack.
    packages = ["ansible-core", "cryptography", "docker", "jmespath", "netaddr"]
    assert list(bundle.glob("controller/ansible-*.whl"))
    (collection,) = bundle.glob("collections/turnkey-hpc-*.tar.gz")
    clean = {"HOME": str(tmp_path), "PATH": f"{home}/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    for argv in (
        [sys.executable, "-m", "venv", str(home)],
        ["pip", "install", "--quiet", "--no-index", "--find-links", str(bundle / "controller"), *packages],
        ["ansible-galaxy", "collection", "install", "--offline", "--no-deps", str(collection)],
        ["ansible-doc", "turnkey.hpc.packages"],
    ):
        subprocess.run(["unshare", "--net", *argv], check=True, env=clean)
