# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Docker images for nodes: a bootstrap image that boots and answers SSH, and the golden image made from it.

The golden image is exported from its build container and imported again, so that it has one layer: what was deleted in
the build is not in a layer below either.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, cast

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._images import (
    CODENAMES,
    OverlayEntry,
    expired_builds,
    overlay_tar,
)

__all__ = ["LABEL_INPUTS", "LABEL_KIND", "DockerImages", "ImageBuild"]

LABEL_KIND = "turnkey.image"
LABEL_INPUTS = "turnkey.inputs"
LABEL_BUILD = "turnkey.build"
BARE = "turnkey/bare"
START = ["/usr/local/sbin/container-init"]
BOOTSTRAP_PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
)
UNPACKING = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "force-unsafe-io",
)
"""Options of dpkg in an image: nobody reads manuals in it, and it is thrown away when it breaks."""

MINIMUM_FREE_GB = 4


@dataclass(frozen=True)
class ImageBuild:
    """What to build: ``name`` with its tag, the Debian ``release``, its source, and what is laid over it.

    ``build`` is the name of this one build, and of its container. Others may be made on the engine at the same time.
    """

    name: str
    release: str
    mirror: str
    source: str
    build: str
    overlay: tuple[OverlayEntry, ...] = ()

    def bootstrap_hash(self) -> str:
        """Return the hash of everything that the bootstrap image is made of."""
        parts = [
            self.release,
            self.mirror,
            *BOOTSTRAP_PACKAGES,
            *UNPACKING,
            *START,
            overlay_tar(list(self.overlay)).hex(),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    @property
    def codename(self) -> str:
        """The release's name in the package archive."""
        if self.release not in CODENAMES:
            raise InvalidInput(
                f"base_image_release {self.release!r} is not a Debian release this collection knows.",
                f"Use one of {', '.join(sorted(CODENAMES))}.",
            )
        return CODENAMES[self.release]

    @property
    def bootstrap_name(self) -> str:
        """Name and tag of the bootstrap image."""
        return f"turnkey/bootstrap:debian{self.release}"

    @property
    def bare_name(self) -> str:
        """Name and tag of the temporary image that the bootstrap image is made from."""
        return f"{BARE}:{self.build}"


def is_as_published(image: Mapping[str, Any]) -> bool:
    """Return whether an inspected image is as we published it. What somebody derived from it has our labels, too."""
    config = image["Config"]
    return len(image["RootFS"]["Layers"]) == 1 and config.get("Cmd") == START and not config.get("Entrypoint")


class DockerImages:
    """Images of one Docker engine. ``api`` is a ``docker.APIClient``."""

    def __init__(self, api: Any, clock: Callable[[], float] = time.time) -> None:
        """Work with ``api``."""
        self._api = api
        self._clock = clock

    def find(self, kind: str, inputs: str) -> dict[str, Any] | None:
        """Return the description of the image of this ``kind`` that was made from these ``inputs``, or None."""
        for row in self._api.images(filters={"label": [f"{LABEL_KIND}={kind}", f"{LABEL_INPUTS}={inputs}"]}):
            if is_as_published(self._api.inspect_image(row["Id"])):
                return dict(row)
        return None

    def tag(self, image: dict[str, Any], name: str) -> bool:
        """Let ``name`` mean ``image``; return whether it meant something else before."""
        if name in (image["RepoTags"] or []):
            return False
        repository, _colon, tag = name.rpartition(":")
        self._api.tag(image["Id"], repository, tag)
        return True

    def check_space(self) -> None:
        """Raise when the engine's disk has no room for an image. A remote engine's disk can't be seen."""
        root = self._api.info().get("DockerRootDir", "")
        try:
            free_gb = shutil.disk_usage(root).free / 1e9
        except OSError:
            return
        if free_gb < MINIMUM_FREE_GB:
            raise HpcError(
                f"{root} has {free_gb:.1f} GB free, and building an image takes {MINIMUM_FREE_GB} GB.",
                "Free some space, for example with 'docker image prune', or move Docker's data-root.",
            )

    def ensure_bootstrap(self, build: ImageBuild) -> bool:
        """Make the bootstrap image unless it exists; return whether anything was changed."""
        inputs = build.bootstrap_hash()
        image = self.find("bootstrap", inputs)
        if image is not None:
            return self.tag(image, build.bootstrap_name)
        self._make_room()
        self._make_bare(build)
        container = self._create(build, build.bare_name, ["true"])
        try:
            self._api.put_archive(container, "/", overlay_tar(list(build.overlay)))
            self._publish(container, build.bootstrap_name, "bootstrap", inputs, build.release)
        finally:
            self._api.remove_container(container, force=True)
            self._api.remove_image(build.bare_name)
        return True

    def start_build(self, build: ImageBuild) -> None:
        """Start a fresh build container. It is not booted: no service runs in it."""
        self._make_room()
        self._api.start(self._create(build, build.bootstrap_name, ["sleep", "infinity"]))

    def publish(self, build: ImageBuild, inputs: str) -> dict[str, Any]:
        """Turn the build container into the image ``build.name`` and return its description."""
        return self._publish(build.build, build.name, "node", inputs, build.release)

    def export_build(self, build: ImageBuild) -> Iterable[bytes]:
        """Return the files of the build container as chunks of a tar archive."""
        return cast(Iterable[bytes], self._api.export(build.build))

    def find_build(self, build: ImageBuild) -> str:
        """Return the id of the build container, or an empty string."""
        return self._build_containers().get(build.build, "")

    def remove_build(self, build: ImageBuild) -> bool:
        """Remove the build container; return whether there was one."""
        container = self.find_build(build)
        if container:
            self._api.remove_container(container, force=True)
        return bool(container)

    def _make_room(self) -> None:
        """Remove what nobody needs any more, and see whether there is room.

        That is what builds have left whose time is over, since their runs were killed, and images that have lost their
        name to others and that no container uses any more.
        """
        now = self._clock()
        containers = self._build_containers()
        for build in expired_builds(containers, now):
            self._api.remove_container(containers[build], force=True)
        tags = [tag for image in self._api.images(name=BARE) for tag in image["RepoTags"] or []]
        for build in expired_builds((tag.rpartition(":")[2] for tag in tags), now):
            self._api.remove_image(f"{BARE}:{build}")
        self._api.prune_images(filters={"dangling": True, "label": LABEL_KIND})
        self.check_space()

    def _build_containers(self) -> dict[str, str]:
        """Return the ids of the containers that builds have made, by name."""
        rows = self._api.containers(all=True, filters={"label": LABEL_BUILD})
        return {name.lstrip("/"): str(row["Id"]) for row in rows for name in row["Names"] or ()}

    def _create(self, build: ImageBuild, image: str, command: list[str]) -> str:
        """Create the container of the build, of which there is one at a time, and return its id."""
        # Without an init: the engine's would leave its mount point, an empty file, in the image.
        made = self._api.create_container(
            image,
            command,
            name=build.build,
            hostname="build",
            labels={LABEL_BUILD: build.release},
        )
        return str(made["Id"])

    def _publish(self, container: str, name: str, kind: str, inputs: str, release: str) -> dict[str, Any]:
        """Import ``container`` as ``name`` in one layer with our labels, and drop the image that had the name."""
        former = self._api.images(name=name, quiet=True)
        changes = [
            f"CMD {json.dumps(START)}",
            "ENV container=docker",
            f"LABEL {LABEL_KIND}={kind} {LABEL_INPUTS}={inputs} turnkey.release={release}",
        ]
        self._import(self._api.export(container), name, changes)
        image = dict(self._api.inspect_image(name))
        for old in former:
            if old != image["Id"] and not self._api.containers(all=True, filters={"ancestor": old}):
                self._api.remove_image(old, force=True)
        return image

    def _import(self, chunks: Iterable[bytes], name: str, changes: list[str]) -> None:
        """Import a tar archive as the image ``name`` with one layer."""
        repository, _colon, tag = name.rpartition(":")
        lines = self._api.import_image_from_data(chunks, repository=repository, tag=tag, changes=changes).splitlines()
        for event in map(json.loads, filter(None, lines)):
            if "error" in event:
                raise HpcError(f"Docker could not import {name}: {event['error']}", "Look into the engine's log.")

    def _make_bare(self, build: ImageBuild) -> None:
        """Make a temporary image of the distribution with what a node needs to boot."""
        if build.source in ("auto", "registry"):
            failure = self._from_registry(build)
            if not failure:
                return
            if build.source == "registry":
                raise HpcError(
                    f"debian:{build.release} can't be pulled: {failure}",
                    "Load it with 'docker load', or set base_image_source to 'mmdebstrap'.",
                )
        self._from_packages(build)

    def _from_registry(self, build: ImageBuild) -> str:
        """Make the bare image from ``debian:<release>``; return why the registry gave none, or an empty string."""
        import docker.errors

        wanted = f"debian:{build.release}"
        try:
            self._api.inspect_image(wanted)
        except docker.errors.ImageNotFound:
            try:
                self._api.pull("debian", tag=build.release)
            except docker.errors.APIError as error:
                return str(error.explanation or error)
        options = " ".join(shlex.quote(line) for line in UNPACKING)
        script = "\n".join(
            [
                "set -e",
                f"printf '%s\\n' {options} >/etc/dpkg/dpkg.cfg.d/turnkey-image",
                "rm -f /etc/apt/apt.conf.d/docker-*",
                "export DEBIAN_FRONTEND=noninteractive",
                "apt-get update -q",
                f"apt-get install -q -y --no-install-recommends {' '.join(BOOTSTRAP_PACKAGES)}",
                "rm -rf /etc/ssh/ssh_host_* /var/lib/apt/lists/* /var/cache/apt/*.bin",
                ": >/etc/machine-id",
            ]
        )
        container = self._create(build, wanted, ["sleep", "infinity"])
        try:
            self._api.start(container)
            execution = self._api.exec_create(container, ["sh", "-c", script])
            output = self._api.exec_start(execution)
            if self._api.exec_inspect(execution)["ExitCode"]:
                last = "\n".join(output.decode(errors="replace").splitlines()[-15:])
                raise HpcError(
                    f"Packages can't be installed into {wanted}:\n{last}", "Check the network of containers."
                )
            self._import(self._api.export(container), build.bare_name, [])
        finally:
            self._api.remove_container(container, force=True)
        return ""

    def _from_packages(self, build: ImageBuild) -> None:
        """Make the bare image with mmdebstrap, streaming its archive into the engine."""
        program = shutil.which("mmdebstrap")
        if program is None:
            raise HpcError(
                f"No registry gives debian:{build.release}, and mmdebstrap is not installed.",
                f"Run 'apt-get install mmdebstrap', or load the image debian:{build.release} into Docker.",
            )
        argv = [program, "--quiet", "--variant=apt", "--format=tar", '--aptopt=Acquire::Languages "none"']
        argv += [f"--dpkgopt={option}" for option in UNPACKING]
        argv += [f"--include={','.join(BOOTSTRAP_PACKAGES)}", '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*']
        argv += [build.codename, "-", build.mirror]
        with tempfile.TemporaryFile() as log, subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=log) as process:
            stream = cast(IO[bytes], process.stdout)
            self._import(iter(lambda: stream.read(1 << 20), b""), build.bare_name, [])
            code = process.wait()
            log.seek(0)
            last = "\n".join(log.read().decode(errors="replace").splitlines()[-15:])
        if code:
            self._api.remove_image(build.bare_name)
            raise HpcError(
                f"mmdebstrap could not make Debian {build.release} from {build.mirror}:\n{last}",
                "Check base_image_mirror and the network.",
            )
