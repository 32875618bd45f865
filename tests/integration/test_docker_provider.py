# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker provider on a real engine, with machines that consist of one static busybox."""

from __future__ import annotations

import io
import shutil
import socket
import subprocess
import tarfile
import uuid
from pathlib import Path

import docker
import pytest
from ansible_collections.turnkey.hpc.plugins.inventory.docker import InventoryModule
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.access import Access
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker import DockerProvider
from ansible_collections.turnkey.hpc.plugins.modules import cluster_machines

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"
IMAGE = "turnkey-test/busybox:provider"
LABEL = "turnkey.cluster"

# A machine as the provider sees it: its host key comes late, something listens on port 22, SIGRTMIN+3 (37) ends it.
INIT = f"""#!/bin/busybox sh
trap 'exit 0' 37
/bin/busybox mkdir -p /etc/ssh
echo {KEY} machine > /etc/ssh/new
/bin/busybox mv /etc/ssh/new /etc/ssh/ssh_host_ed25519_key.pub
[ -e /broken ] || /bin/busybox httpd -p 22 -h /root
while :; do /bin/busybox sleep 3600 & wait; done
"""


def busybox(folder: Path) -> bytes:
    """Return a static busybox: this machine's, or the one from Debian's package."""
    there = shutil.which("busybox")
    if there and "httpd" in subprocess.run([there, "--list"], capture_output=True, text=True, check=True).stdout:
        linked = subprocess.run(["ldd", there], capture_output=True, check=False)
        if linked.returncode:
            return Path(there).read_bytes()
    subprocess.run(["apt-get", "-qq", "download", "busybox-static"], cwd=folder, check=True)
    subprocess.run(["dpkg-deb", "-x", str(next(folder.glob("*.deb"))), str(folder / "x")], check=True)
    return (folder / "x" / "bin" / "busybox").read_bytes()


@pytest.fixture(scope="session")
def engine():
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine, tmp_path_factory):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for folder in ("bin", "proc", "sys", "dev", "etc", "root", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, content in (("bin/busybox", busybox(tmp_path_factory.mktemp("busybox"))), ("init", INIT.encode())):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("bin/cat")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
    repository, tag = IMAGE.split(":")
    engine.import_image_from_data(packed.getvalue(), repository, tag, changes=['CMD ["/init"]', "ENV PATH=/bin"])
    yield IMAGE
    engine.remove_image(IMAGE, force=True)


def free_network(engine) -> str:
    """Return a network that nothing on this machine overlaps."""
    used = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=False).stdout
    used += str(engine.networks())
    return next(f"10.98.{n}.0/24" for n in range(200, 256) if f"10.98.{n}." not in used)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Site:
    """One cluster with its parameters."""

    def __init__(self, engine, folder: Path, image: str):
        self.engine = engine
        self.cluster = f"t{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.access = Access(str(folder / ".secrets" / "access"), self.cluster, cluster_machines.run_local)
        self.image, self.network, self.port = image, free_network(engine), free_port()

    def params(self, count: int, changes: dict) -> dict:
        volumes = [{"name": "shared", "path": "/shared"}]
        head = {"name": "head", "image": self.image, "groups": ["controller"], "bastion": True, "volumes": volumes}
        node = {"name": "node", "image": self.image, "groups": ["compute"], "count": count, "volumes": volumes}
        given = {
            "provider": "docker",
            "cluster_name": self.cluster,
            "network": self.network,
            "machine_sets": [head, node],
            "bastion_bind": "127.0.0.1",
            "bastion_port": self.port,
            "admin_public_key": None,
            "allow_replace": False,
            "confirm": self.cluster,
            "min_free_disk_gb": 0.1,
            "ready_timeout_seconds": 30,
        }
        return {**given, **changes}

    def present(self, count: int = 1, check: bool = False, provider=None, **changes) -> dict:
        return cluster_machines.present(self.params(count, changes), provider, self.access, check)

    def absent(self, check: bool = False, provider=None, **changes) -> dict:
        return cluster_machines.absent(self.params(1, changes), provider, self.access, check)

    def provider(self, engine=None) -> DockerProvider:
        return DockerProvider(engine or self.engine, cluster_machines.run_local)

    def container(self, name: str) -> dict:
        return self.engine.inspect_container(f"{self.cluster}-{name}")

    def everything(self) -> list[str]:
        """Return what exists with the cluster's label or name, whoever made it."""
        names = [name for row in self.engine.containers(all=True) for name in row["Names"]]
        names += [row["Name"] for row in self.engine.networks()]
        names += [row["Name"] for row in self.engine.volumes()["Volumes"] or []]
        return sorted(name for name in names if self.cluster in name)


@pytest.fixture
def site(engine, image, tmp_path):
    one = Site(engine, tmp_path, image)
    yield one
    cluster_machines.absent(one.params(1, {}), one.provider(), None, False)


def test_a_cluster_is_made_grows_shrinks_and_goes_without_a_trace(site):
    foreign = site.engine.create_volume(f"foreign-{site.cluster}")["Name"]
    try:
        planned = site.present(count=2, check=True)
        assert [foreign] == site.everything()
        assert not (site.folder / ".secrets").exists()

        made = site.present(count=2)
        assert made["actions"] == planned["actions"]
        assert [machine["host_key"] for machine in made["machines"]] == [KEY] * 3
        assert site.present(count=2)["changed"] is False
        assert site.present(count=2, check=True)["changed"] is False

        assert site.present(count=3)["actions"] == ["create machine node3"]
        assert site.present(count=1)["actions"] == ["delete machine node2", "delete machine node3"]

        assert site.absent(check=True)["changed"]
        with pytest.raises(HpcError, match=r"It would destroy the machines head, node1 .* the volumes shared"):
            site.absent(confirm="")
        site.absent()
        assert [foreign] == site.everything()
        assert not site.access.directory.exists()
        assert site.absent()["changed"] is False
    finally:
        site.engine.remove_volume(foreign)


def test_only_the_bastion_is_published_and_the_machines_are_where_they_should_be(site):
    site.present()
    ports = {name: site.container(name)["NetworkSettings"]["Ports"] for name in ("head", "node1")}
    assert ports["head"]["22/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(site.port)}]
    assert not any((ports["node1"] or {}).values())
    settings = site.container("node1")["NetworkSettings"]["Networks"][f"turnkey-{site.cluster}"]
    assert settings["IPAddress"] == site.network.replace(".0/24", ".11")
    archive, _stat = site.engine.get_archive(f"{site.cluster}-node1", "/root/.ssh/authorized_keys")
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive))) as packed:
        member = packed.getmembers()[0]
        assert member.mode & 0o777 == 0o600
        assert packed.extractfile(member).read().decode().strip() == site.access.public_key()


def test_stopped_machines_are_started_and_a_lost_key_is_replaced(site):
    site.present()
    site.provider().stop(site.cluster, ["node1"])
    assert site.container("node1")["State"]["Running"] is False
    assert site.present()["actions"] == ["start machine node1"]

    shutil.rmtree(site.access.directory)
    assert site.present()["actions"] == ["update machine head (operator_keys)", "update machine node1 (operator_keys)"]
    assert site.present()["changed"] is False

    site.provider().terminate(site.cluster, ["node1", "never-was"])
    assert [machine.name for machine in site.provider().list_instances(site.cluster)] == ["head"]


def test_a_replacement_needs_permission_and_spares_the_volume(site):
    site.present()
    before = site.container("head")["Id"]
    with pytest.raises(HpcError, match=r"machine head \(bastion: .* would be lost"):
        site.present(bastion_port=free_port())
    assert site.container("head")["Id"] == before
    result = site.present(bastion_port=free_port(), allow_replace=True)
    assert [action.split(" (")[0] for action in result["actions"]] == ["delete machine head", "create machine head"]
    assert f"turnkey-{site.cluster}-shared" in site.everything()


class CutOff(BaseException):
    """The process is gone."""


class Dying:
    """An engine whose client dies before the n-th changing call."""

    CHANGING = (
        "create_network",
        "create_volume",
        "create_container_from_config",
        "put_archive",
        "start",
        "remove_container",
        "remove_network",
        "remove_volume",
    )

    def __init__(self, engine, calls: int):
        self._engine, self._left = engine, calls

    def __getattr__(self, name):
        if name in self.CHANGING:
            self._left -= 1
            if self._left < 0:
                raise CutOff(name)
        return getattr(self._engine, name)


def test_a_run_that_was_cut_off_anywhere_is_completed_by_the_next(site):
    # network, volume, container, key, start; and backwards: container, network, volume
    for calls in range(5):
        with pytest.raises(CutOff):
            site.present(count=0, provider=site.provider(Dying(site.engine, calls)))
        site.present(count=0)
        keys = site.provider().discover(site.cluster).of_kind("machine")["head"].settings["operator_keys"]
        assert keys == {site.access.public_key()}
        if calls < 3:
            with pytest.raises(CutOff):
                site.absent(provider=site.provider(Dying(site.engine, calls)))
        site.absent()
        assert site.everything() == []


def test_what_is_in_the_way_is_reported_together_and_nothing_is_made(site):
    # the engine accepts the label of another cluster here: it is foreign all the same
    site.engine.create_volume(f"turnkey-{site.cluster}-shared", labels={LABEL: "other"})
    site.engine.create_network(f"turnkey-{site.cluster}", driver="bridge")
    before = site.everything()
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", site.port))
            listener.listen()
            with pytest.raises(HpcError) as caught:
                site.present(min_free_disk_gb=10**9)
        text = str(caught.value)
        for part in ("volume turnkey-", "Docker network turnkey-", "in use by another program", "GB free"):
            assert part in text
        assert text.startswith("4 problems")
        assert site.everything() == before
    finally:
        site.engine.remove_network(f"turnkey-{site.cluster}")
        site.engine.remove_volume(f"turnkey-{site.cluster}-shared")


def test_a_machine_that_does_not_come_up_is_named_with_its_last_messages(site, image):
    broken = f"{image}-broken"
    holder = site.engine.create_container(image)["Id"]
    with io.BytesIO() as packed:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("broken"))
        site.engine.put_archive(holder, "/", packed.getvalue())
    site.engine.commit(holder, *broken.split(":"))
    site.engine.remove_container(holder)
    try:
        site.image = broken
        with pytest.raises(
            HpcError, match=r"machine node1 can't be reached after 1 s: nothing listens .* Its last messages"
        ):
            site.present(ready_timeout_seconds=1)
        site.absent()
    finally:
        site.engine.remove_image(broken, force=True)


def test_the_inventory_has_the_machines_and_a_warm_run_needs_no_engine(site, monkeypatch):
    site.present()
    config = site.folder / "x.docker.yml"
    config.write_text(
        f"plugin: turnkey.hpc.docker\ncluster_name: {site.cluster}\ncache: true\n"
        f"cache_plugin: ansible.builtin.jsonfile\ncache_connection: {site.folder}/cache\n"
    )
    assert InventoryModule().verify_file(str(config))

    def hosts() -> str:
        command = ["ansible-inventory", "-i", str(config), "--graph", "--vars"]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=site.folder).stdout

    cold = hosts()
    for part in (
        "@controller:",
        "@k3s_server:",
        "|  |--head",
        f"cluster_address = {site.network.replace('.0/24', '.11')}",
    ):
        assert part in cold
    monkeypatch.setenv("DOCKER_HOST", "unix:///nobody/there.sock")
    assert hosts() == cold
