# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import json
import re
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._images import OverlayEntry, build_name
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker_image import START, DockerImages, ImageBuild

errors = pytest.importorskip("docker.errors")

NODE = "turnkey/node:debian12"
NOW = 1_800_000_000
BUILD, LATER = build_name(NOW, 0), build_name(NOW, 1)


class Engine:
    """A ``docker.APIClient`` without an engine: it keeps images and containers, and notes what changes them."""

    def __init__(self, *, registry=("debian:12",), import_error="", exit_code=0, root="/nowhere"):
        self.image_rows, self.container_rows, self.calls, self.archives = [], [], [], []
        self._registry, self._import_error, self._exit_code, self._root = registry, import_error, exit_code, root
        self._made = 0

    def add_image(self, *tags, **labels):
        self._made += 1
        row = {"Id": f"image{self._made}", "RepoTags": None, "Labels": labels, "Size": 5}
        row |= {"RootFS": {"Layers": ["a"]}, "Config": {"Cmd": START, "Entrypoint": None}}
        self.image_rows.append(row)
        for name in tags:
            self._name(row, name)
        return row["Id"]

    def add_container(self, name, image="", **labels):
        self._made += 1
        row = {"Id": f"container{self._made}", "Names": [f"/{name}"], "Labels": labels, "Image": image}
        self.container_rows.append(row)
        return row["Id"]

    def names(self):
        return sorted(name for row in self.image_rows for name in row["RepoTags"] or [])

    def _name(self, image, name):
        for row in self.image_rows:
            row["RepoTags"] = [one for one in row["RepoTags"] or [] if one != name] or None
        image["RepoTags"] = [*(image["RepoTags"] or []), name]

    def _image(self, name):
        for row in self.image_rows:
            if name == row["Id"] or name in (row["RepoTags"] or []):
                return row
        raise errors.ImageNotFound(f"No such image: {name}")

    # Reading

    def info(self):
        return {"DockerRootDir": self._root}

    def images(self, name=None, quiet=False, filters=None):
        wanted = {tuple(text.split("=", 1)) for text in (filters or {}).get("label", [])}
        rows = [row for row in self.image_rows if wanted <= set(row["Labels"].items()) and _has_name(row, name)]
        return [row["Id"] for row in rows] if quiet else rows

    def inspect_image(self, name):
        return self._image(name)

    def containers(self, all=False, filters=None):
        label, ancestor = (filters or {}).get("label"), (filters or {}).get("ancestor")
        rows = [row for row in self.container_rows if label is None or label in row["Labels"]]
        return [row for row in rows if ancestor in (None, row["Image"])]

    def export(self, container):
        return iter([f"files of {container}".encode()])

    # Changing

    def pull(self, repository, tag):
        self.calls.append(f"pull {repository}:{tag}")
        if f"{repository}:{tag}" not in self._registry:
            raise errors.APIError("500", explanation="no route to registry")
        self.add_image(f"{repository}:{tag}")

    def tag(self, image, repository, tag):
        self.calls.append(f"tag {image} {repository}:{tag}")
        self._name(self._image(image), f"{repository}:{tag}")

    def create_container(self, image, command, name, hostname, labels):
        self.calls.append(f"create {name} from {image}")
        return {"Id": self.add_container(name, self._image(image)["Id"], **labels)}

    def put_archive(self, container, path, data):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            self.archives += [path + name for name in archive.getnames()]

    def start(self, container):
        self.calls.append(f"start {container}")

    def exec_create(self, container, argv):
        return argv

    def exec_start(self, argv):
        self.calls.append("exec " + argv[-1])
        return b"Err:1 archive unreachable\n" if self._exit_code else b""

    def exec_inspect(self, argv):
        return {"ExitCode": self._exit_code}

    def import_image_from_data(self, chunks, repository, tag, changes):
        self.calls.append(f"import {repository}:{tag} {b''.join(chunks).decode()}")
        if self._import_error:
            return '{"status": "reading"}\r\n' + json.dumps({"error": self._import_error}) + "\r\n"
        words = [word for line in changes if line.startswith("LABEL ") for word in line.split()[1:]]
        image = self.add_image(f"{repository}:{tag}", **dict(word.split("=", 1) for word in words))
        self._image(image)["Changes"] = changes
        return json.dumps({"status": image}) + "\r\n"

    def remove_container(self, container, force):
        self.calls.append(f"remove {container}")
        self.container_rows = [row for row in self.container_rows if row["Id"] != container]

    def prune_images(self, filters):
        assert filters == {"dangling": True, "label": "turnkey.image"}
        used = {row["Image"] for row in self.container_rows}
        self.image_rows = [
            row
            for row in self.image_rows
            if row["RepoTags"] or row["Id"] in used or "turnkey.image" not in row["Labels"]
        ]

    def remove_image(self, image, force=False):
        self.calls.append(f"remove {image}")
        self.image_rows.remove(self._image(image))


def _has_name(image, name):
    """Return whether one of an image's tags is ``name``, or has that repository."""
    return name is None or any(name in (tag, tag.rpartition(":")[0]) for tag in image["RepoTags"] or [])


def build(source="auto", release="12", overlay=(), name=BUILD):
    return ImageBuild(f"turnkey/node:debian{release}", release, "http://mirror", source, name, tuple(overlay))


def labels(kind, inputs):
    return {"turnkey.image": kind, "turnkey.inputs": inputs}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a directory that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def mmdebstrap(programs, script):
    program = programs / "mmdebstrap"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


# An image that is there already


def test_an_image_with_the_same_inputs_is_not_built_again_but_gets_its_name_back():
    engine = Engine()
    image = engine.add_image(**labels("bootstrap", build().bootstrap_hash()))
    other = engine.add_image("turnkey/bootstrap:debian12", **labels("bootstrap", "older"))
    assert DockerImages(engine).ensure_bootstrap(build()) is True
    assert engine.calls == [f"tag {image} turnkey/bootstrap:debian12"]
    assert engine.inspect_image("turnkey/bootstrap:debian12")["Id"] == image
    assert engine.inspect_image(other)["RepoTags"] is None


def test_an_image_with_the_same_inputs_and_its_name_is_left_alone():
    engine = Engine()
    engine.add_image("turnkey/bootstrap:debian12", **labels("bootstrap", build().bootstrap_hash()))
    assert DockerImages(engine).ensure_bootstrap(build()) is False
    assert engine.calls == []


@pytest.mark.parametrize(("kind", "inputs"), [("node", "1"), ("bootstrap", "2"), ("other", "3")])
def test_an_image_of_another_kind_or_of_other_inputs_is_not_taken(kind, inputs):
    engine = Engine()
    engine.add_image(NODE, **labels("bootstrap", "1"))
    engine.add_image(NODE, **labels("node", "2"))
    engine.add_image(NODE)
    assert DockerImages(engine).find(kind, inputs) is None


@pytest.mark.parametrize(
    "difference",
    [
        {"RootFS": {"Layers": ["a", "b"]}},
        {"Config": {"Cmd": ["bash"], "Entrypoint": None}},
        {"Config": {"Cmd": START, "Entrypoint": ["sleep"]}},
    ],
)
def test_an_image_that_somebody_derived_from_ours_is_not_taken(difference):
    engine = Engine()
    engine.add_image(**labels("node", "1"))
    engine.image_rows[0].update(difference)
    assert DockerImages(engine).find("node", "1") is None
    ours = engine.add_image(**labels("node", "1"))
    assert DockerImages(engine).find("node", "1")["Id"] == ours


# The bootstrap image


def test_the_bootstrap_image_is_the_distribution_with_packages_and_overlay_and_nothing_else_is_left():
    engine = Engine()
    wanted = build(overlay=[OverlayEntry("/etc/motd", "hello\n")])
    assert DockerImages(engine).ensure_bootstrap(wanted) is True
    assert engine.names() == ["debian:12", "turnkey/bootstrap:debian12"]
    assert engine.archives == ["/etc/motd"]
    assert any(re.search("apt-get install .* openssh-server .* systemd", call) for call in engine.calls)
    assert engine.container_rows == []
    assert DockerImages(engine).ensure_bootstrap(wanted) is False


def test_an_image_boots_our_init_and_says_what_it_was_made_of():
    engine = Engine()
    DockerImages(engine).ensure_bootstrap(build())
    image = engine.inspect_image("turnkey/bootstrap:debian12")
    assert image["Changes"][0] == 'CMD ["/usr/local/sbin/container-init"]'
    assert image["Labels"] == {**labels("bootstrap", build().bootstrap_hash()), "turnkey.release": "12"}


def test_a_distribution_that_the_engine_has_is_not_pulled():
    engine = Engine(registry=())
    engine.add_image("debian:12")
    DockerImages(engine).ensure_bootstrap(build("registry"))
    assert not [call for call in engine.calls if call.startswith("pull")]


def test_without_a_registry_the_distribution_comes_from_packages(programs):
    mmdebstrap(programs, 'printf "packages of"; for word; do :; done; printf " %s" "$word"')
    engine = Engine(registry=())
    DockerImages(engine).ensure_bootstrap(build("auto"))
    assert engine.calls[:2] == ["pull debian:12", f"import turnkey/bare:{BUILD} packages of http://mirror"]
    assert engine.names() == ["turnkey/bootstrap:debian12"]


def test_the_registry_is_not_asked_when_packages_are_wanted(programs):
    mmdebstrap(programs, "printf x")
    engine = Engine()
    DockerImages(engine).ensure_bootstrap(build("mmdebstrap"))
    assert engine.calls[0] == f"import turnkey/bare:{BUILD} x"


def test_packages_are_no_substitute_when_the_registry_is_wanted(programs):
    mmdebstrap(programs, "printf x")
    engine = Engine(registry=())
    with pytest.raises(HpcError, match=r"debian:12 can't be pulled: no route to registry .*docker load"):
        DockerImages(engine).ensure_bootstrap(build("registry"))
    assert engine.calls == ["pull debian:12"]


def test_without_registry_and_mmdebstrap_the_message_says_how_to_get_one_of_them(programs):
    with pytest.raises(HpcError, match=r"No registry gives debian:12.*apt-get install mmdebstrap.*image debian:12"):
        DockerImages(Engine(registry=())).ensure_bootstrap(build())


def test_when_mmdebstrap_fails_its_last_words_are_shown_and_its_half_image_goes(programs):
    mmdebstrap(programs, "echo E: mirror is down >&2; exit 25")
    engine = Engine()
    with pytest.raises(HpcError, match=r"(?s)Debian 12 from http://mirror:\nE: mirror is down.*base_image_mirror"):
        DockerImages(engine).ensure_bootstrap(build("mmdebstrap"))
    assert engine.names() == []


def test_when_packages_cannot_be_installed_the_last_words_are_shown_and_the_container_goes():
    engine = Engine(exit_code=100)
    with pytest.raises(HpcError, match="can't be installed into debian:12:\nErr:1 archive unreachable"):
        DockerImages(engine).ensure_bootstrap(build())
    assert (engine.names(), engine.container_rows) == (["debian:12"], [])


def test_an_error_in_the_stream_of_an_import_is_one_clear_message_and_the_container_goes():
    engine = Engine(import_error="no space left on device")
    with pytest.raises(HpcError, match=f"Docker could not import turnkey/bare:{BUILD}: no space left on device"):
        DockerImages(engine).ensure_bootstrap(build())
    assert engine.container_rows == []


# The build container


def test_a_build_starts_from_the_bootstrap_image_in_a_container_that_carries_our_label():
    engine = Engine()
    engine.add_image("turnkey/bootstrap:debian12")
    DockerImages(engine).start_build(build())
    (row,) = engine.container_rows
    assert (row["Names"], row["Labels"]) == ([f"/{BUILD}"], {"turnkey.build": "12"})
    assert engine.calls == [f"create {BUILD} from turnkey/bootstrap:debian12", f"start {row['Id']}"]


def test_builds_on_one_engine_do_not_disturb_each_other():
    engine = Engine()
    engine.add_image("turnkey/bootstrap:debian12")
    images, first, second = DockerImages(engine), build(), build(name=LATER)
    for one in (first, second):
        images.start_build(one)
    image = images.publish(first, "newer")
    assert [images.remove_build(first), images.remove_build(first)] == [True, False]
    assert [row["Names"] for row in engine.container_rows] == [[f"/{LATER}"]]
    assert engine.inspect_image(NODE)["Id"] == image["Id"]


def test_what_killed_builds_have_left_goes_when_their_time_is_over():
    engine = Engine()
    for name in (BUILD, LATER):
        engine.add_container(name, **{"turnkey.build": "12"})
        engine.add_image(f"turnkey/bare:{name}")
    engine.add_container("build-0000000000001", **{"com.example": "mine"})
    engine.add_image("turnkey/bootstrap:debian12")
    newest = build(name=build_name(NOW, 3))
    DockerImages(engine, clock=lambda: NOW + 1).start_build(newest)
    assert [row["Names"][0] for row in engine.container_rows] == [
        f"/{LATER}",
        "/build-0000000000001",
        f"/{newest.build}",
    ]
    assert engine.names() == [f"turnkey/bare:{LATER}", "turnkey/bootstrap:debian12"]


def test_images_without_a_name_go_unless_they_are_used_or_not_ours():
    engine = Engine()
    engine.add_image("turnkey/bootstrap:debian12")
    engine.add_image(**labels("node", "older"))
    used, foreign = engine.add_image(**labels("node", "old")), engine.add_image()
    engine.add_container("demo-node1", used)
    DockerImages(engine).start_build(build())
    assert [row["Id"] for row in engine.image_rows if not row["RepoTags"]] == [used, foreign]


def test_a_foreign_container_with_the_name_of_a_build_stays():
    engine = Engine()
    foreign = engine.add_container(BUILD, **{"com.example": "mine"})
    assert DockerImages(engine).remove_build(build()) is False
    assert [row["Id"] for row in engine.container_rows] == [foreign]


# Publishing


@pytest.mark.parametrize("used", [False, True])
def test_the_image_that_had_the_name_is_removed_only_when_no_container_uses_it(used):
    engine = Engine()
    former = engine.add_image(NODE, **labels("node", "older"))
    engine.add_container("demo-node1", former if used else "")
    image = DockerImages(engine).publish(build(), "newer")
    assert image["Labels"] == {**labels("node", "newer"), "turnkey.release": "12"}
    assert engine.inspect_image(NODE)["Id"] == image["Id"]
    assert (former in [row["Id"] for row in engine.image_rows]) is used


def test_an_image_that_cannot_be_published_leaves_the_former_one_with_its_name():
    engine = Engine(import_error="unexpected EOF")
    former = engine.add_image(NODE, **labels("node", "older"))
    with pytest.raises(HpcError, match=f"Docker could not import {NODE}: unexpected EOF"):
        DockerImages(engine).publish(build(), "newer")
    assert engine.inspect_image(NODE)["Id"] == former


# Room


@pytest.mark.parametrize("method", ["ensure_bootstrap", "start_build"])
def test_too_little_disk_is_one_clear_message_before_anything_is_made(method):
    engine = Engine(root="/proc")  # a file system that never has room
    with pytest.raises(HpcError, match=r"^/proc has 0\.0 GB free, .* takes 4 GB\. Remedy: .*docker image prune"):
        getattr(DockerImages(engine), method)(build())
    assert engine.calls == []


def test_the_disk_of_an_engine_elsewhere_is_not_looked_at():
    DockerImages(Engine(root="/not/on/this/machine")).check_space()
