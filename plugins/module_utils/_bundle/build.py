# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle of all that a cluster needs: resolved, fetched, listed and signed. Runs on the control node."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import html
import json
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ansible_collections.turnkey.hpc.plugins.module_utils._apt_sources import parse_proxies
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import signature
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.apt import (
    Deb,
    Resolver,
    packages_index,
    pool_path,
    release_file,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.collection import pack_collection
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.fetch import Download, Open, fetch_all, opener
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import (
    KINDS,
    MACHINES,
    MANIFEST,
    PUBLIC_KEY,
    SIGNATURE,
    UNLISTED,
    Difference,
    File,
    Manifest,
    Target,
    check_path,
    check_tree,
    compare,
    dump,
    parse,
    refuse,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.sbom import bill
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import check_directory, digest, scan
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.release import find_artifacts, read_sums, release_names
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, write_atomically

__all__ = [
    "Builder",
    "GivenFile",
    "GivenImage",
    "Lock",
    "Release",
    "Wishes",
    "check_files",
    "image_path",
    "load",
    "look_into_image",
    "merged",
    "wheel_index",
]

COMPLETE = ".complete"


@dataclass(frozen=True)
class GivenFile:
    """A file that the inventory names: at an address or on the control node."""

    name: str
    version: str
    url: str
    sha256: str = ""
    kind: str = "file"
    architecture: str = ""
    needed_by: str = ""

    @property
    def path(self) -> str:
        """Where it is in the bundle."""
        base = self.url.split("?")[0].rsplit("/", 1)[-1].replace("%2B", "+")
        return f"files/{self.name}/{self.version}/{base}" if self.kind == "file" else f"{KINDS[self.kind]}/{base}"


@dataclass(frozen=True)
class GivenImage:
    """A container image: what it is called, and where skopeo finds it."""

    reference: str
    source: str = ""

    @property
    def where(self) -> str:
        """The image in skopeo's words."""
        return self.source or f"docker://{self.reference}"


@dataclass(frozen=True)
class Release:
    """A release of k3s: where it is (a directory or an address with one directory a version), and for what."""

    version: str
    source: str
    architecture: str = "amd64"
    sums_sha256: str = ""

    @property
    def sums(self) -> str:
        """Name of the list of sums that the release comes with."""
        return f"sha256sum-{self.architecture}.txt"


@dataclass(frozen=True)
class Lock:
    """A file of requirements with hashes, and the Debian release whose Python it is for."""

    path: Path
    release: str
    needed_by: str = ""


@dataclass
class Wishes:
    """What the bundle should hold. ``hosts``: for each kind of machine, the packages of each host by role."""

    cluster: str
    hosts: dict[Target, list[dict[str, list[str]]]] = field(default_factory=dict)
    sources: Sequence[str] = ()
    files: Sequence[GivenFile] = ()
    releases: Sequence[Release] = ()
    images: Sequence[GivenImage] = ()
    locks: Sequence[Lock] = ()
    controller: Sequence[Path] = ()
    collections: Sequence[Path] = ()


def check_files(files: Sequence[GivenFile]) -> None:
    """Refuse given files that can't be fetched, or can't be told from others."""
    problems = []
    for file in files:
        if file.kind not in ("file", "chart", "npm", "collection"):
            problems.append(f"{file.name}: kind is {file.kind!r}, not file, chart, npm or collection")
            continue
        remote = "://" in file.url and not file.url.startswith("file:")
        if remote and not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
            problems.append(f"{file.name}: {file.url} needs its sha256, 64 digits")
        if check_path(file.path):
            problems.append(f"{file.name}: {check_path(file.path)}")
    paths = [file.path for file in files if file.kind in KINDS]
    problems += [f"{path} is given twice" for path in sorted({one for one in paths if paths.count(one) > 1})]
    if problems:
        raise InvalidInput(f"mirror_files: {join_problems(problems)}", "correct these entries.")


def image_path(reference: str) -> str:
    """Return where an image is in the bundle."""
    return f"images/{re.sub(r'[^A-Za-z0-9._-]+', '_', reference)}.tar"


def merged(files: Iterable[File]) -> list[File]:
    """Return files without those that are there twice, since two roles need them."""
    found: dict[str, File] = {}
    for file in files:
        other = found.get(file.path, file)
        found[file.path] = replace(file, needed_by=tuple(sorted({*file.needed_by, *other.needed_by})))
    return list(found.values())


def look_into_image(path: Path) -> tuple[str, set[str]]:
    """Return the digest of the image in an OCI archive, and the architectures that it is for."""
    try:
        with tarfile.open(path) as archive:

            def read(name: str) -> Any:
                stream = archive.extractfile(name)
                return json.load(stream) if stream else {}

            def blob(entry: Mapping[str, Any]) -> Any:
                return read(f"blobs/{entry['digest'].replace(':', '/')}")

            (found,) = read("index.json")["manifests"]
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", found["digest"]):
                raise ValueError(found["digest"])
            top = blob(found)
            manifests = [blob(entry) for entry in top["manifests"]] if "manifests" in top else [top]
            return found["digest"], {str(blob(one["config"])["architecture"]) for one in manifests}
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise HpcError(f"{path} is no OCI archive with one image ({error}).") from error


def wheel_index(files: Sequence[File]) -> dict[str, str]:
    """Return the pages of a simple index for wheels, by path in the bundle."""
    pages: dict[str, list[File]] = {}
    for file in files:
        project = re.sub(r"[-_.]+", "-", file.name).lower()
        pages.setdefault(f"wheels/debian{file.release}/simple/{project}/index.html", []).append(file)
    result = {}
    for path, wheels in pages.items():
        names = sorted((file.path.rsplit("/", 1)[-1], file.sha256) for file in wheels)
        links = "".join(
            f'<a href="../../{html.escape(name)}#sha256={sha256}">{html.escape(name)}</a>\n' for name, sha256 in names
        )
        result[path] = f'<!DOCTYPE html>\n<meta name="pypi:repository-version" content="1.0">\n{links}'
    return result


def load(directory: Path) -> Manifest | None:
    """Return the manifest of a bundle, or None if there is none or it can't be read. It is not verified."""
    try:
        return parse((directory / MANIFEST).read_text(encoding="utf-8"), str(directory / MANIFEST))
    except (OSError, HpcError):
        return None


class Builder:
    """Builds one bundle."""

    def __init__(
        self,
        run: Run,
        directory: Path,
        key: Path,
        cache: Path,
        say: Callable[[str], None] = lambda text: None,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.timezone.utc),
        open_url: Open | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Build in ``directory`` with the key in ``key``; ``cache`` keeps package lists and wheels."""
        self.run, self.directory, self.key, self.cache, self.say, self.now = run, directory, key, cache, say, now
        self.open_url, self.pause = open_url or opener(self._proxies()), pause

    def _proxies(self) -> dict[str, str]:
        code, out, _err = self.run(["apt-config", "dump"], None)
        return parse_proxies(out) if code == 0 else {}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep another run out of the same directory."""
        self.cache.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:12]
        with (self.cache / f"{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise HpcError(f"Another run builds {self.directory}.", "wait for it.") from error
            yield

    def build(self, wishes: Wishes, check_mode: bool = False) -> tuple[Manifest, Difference]:
        """Make the bundle what ``wishes`` say; return its manifest and what is new in it."""
        check_directory(self.directory)
        with self._alone():
            old = load(self.directory)
            before = old or Manifest(wishes.cluster, "", (), ())
            debs, indices = self._resolve(wishes)
            downloads = {
                file.path: Download(file.source, self.directory / file.path, file.sha256, file.size) for file in debs
            }
            wanted = [*wishes.files, *(file for one in wishes.releases for file in self._release(one))]
            wanted += [self._collection(path) for path in wishes.collections]
            check_files(wanted)
            given = [self._given(file) for file in wanted]
            downloads.update(
                {file.path: Download(file.source, self.directory / file.path, file.sha256, file.size) for file in given}
            )
            wheels = merged(wheel for lock in wishes.locks for wheel in self._wheels(lock, wishes, check_mode))
            wheels += self._controller(wishes.controller, check_mode)
            downloads.update(
                {file.path: Download(file.source, self.directory / file.path, file.sha256) for file in wheels}
            )
            images = [self._image(image, wishes, before, check_mode) for image in wishes.images]
            content = [*debs, *given, *[replace(file, source="PyPI") for file in wheels], *images]
            planned = Manifest(wishes.cluster, before.created, tuple(wishes.hosts), tuple(content))
            difference = compare(_content(before), planned)
            if check_mode:
                return planned, difference
            self.say(f"{len(downloads)} files, {sum(one.size for one in downloads.values()) / 1e6:.0f} MB")
            self.directory.mkdir(parents=True, exist_ok=True)
            fetched = fetch_all(downloads.values(), self.open_url, self.say, self.pause)
            sized = [replace(file, size=(self.directory / file.path).stat().st_size) for file in content]
            planned = replace(planned, files=tuple(sized))
            same = sorted(map(_identity, sized)) == sorted(map(_identity, _content(before).files))
            if old and same and old.targets == planned.targets and not fetched and self._intact(old):
                return old, Difference()
            return self._seal(planned, indices), difference

    def _resolve(self, wishes: Wishes) -> tuple[list[File], dict[Target, tuple[list[Deb], str]]]:
        """Find the packages of all kinds of machines, and what the package lists say of them."""
        files: dict[str, File] = {}
        indices = {}
        for target, hosts in wishes.hosts.items():
            self.say(f"packages for {target}")
            root = self.cache / "apt" / f"{target.codename}-{target.architecture}"
            resolver = Resolver(self.run, root, target, wishes.sources)
            resolver.update()
            roles: dict[str, set[str]] = {}
            sets = {frozenset(name for names in host.values() for name in names) for host in hosts}
            for host in hosts:
                for role, names in host.items():
                    roles.setdefault(role, set()).update(names)
            # Hosts install all their roles' packages together; what each role needs of them is said for the reader.
            found = {deb for names in sets for deb in resolver.closure(names)}
            needed: dict[str, set[str]] = {}
            for role, wanted in roles.items():
                for deb in resolver.closure(wanted):
                    needed.setdefault(deb.name, set()).add(role)
            for deb in found:
                path = pool_path(deb, target.codename)
                files[path] = File(
                    path, deb.size, deb.sha256, "deb", deb.name, deb.version, deb.uri,
                    tuple(sorted(needed.get(deb.name, ()))), target.release, deb.architecture,
                )  # fmt: skip
            indices[target] = (sorted(found, key=lambda deb: deb.name), resolver.stanzas(list(found)) if found else "")
        return list(files.values()), indices

    def _release(self, release: Release) -> list[GivenFile]:
        """Return the files of a release of k3s, with the digests that its own list gives them."""
        base = release.source.rstrip("/")
        if "://" not in base:
            files = [
                (one.path, one.sha256) for one in find_artifacts(f"{base}/{release.version}", release.architecture)
            ]
            sums = (f"{base}/{release.version}/{release.sums}", "")
        else:
            base += f"/{release.version.replace('+', '%2B')}"
            if not re.fullmatch(r"[0-9a-f]{64}", release.sums_sha256):
                raise InvalidInput(
                    f"Nothing says what {base}/{release.sums} should be.",
                    f"look at it, and give its sha256 as mirror_k3s_sums_sha256: {{{release.architecture}: ...}}.",
                )
            local = self.cache / "k3s" / release.version / release.sums
            sums = (f"{base}/{release.sums}", release.sums_sha256)
            fetch_all([Download(sums[0], local, sums[1])], self.open_url, self.say, self.pause)
            listed = read_sums(local.read_text(encoding="utf-8"))
            names = release_names(release.architecture, listed)
            files = [(f"{base}/{name}", listed[name]) for name in names]
        return [
            GivenFile("k3s", release.version, url, sha256, architecture=release.architecture)
            for url, sha256 in (*files, sums)
        ]

    def _collection(self, root: Path) -> GivenFile:
        path = pack_collection(self.run, root, self.cache / "collections")
        namespace, name, version = path.name.removesuffix(".tar.gz").split("-", 2)
        return GivenFile(f"{namespace}.{name}", version, str(path), kind="collection", needed_by="the control node")

    def _given(self, file: GivenFile) -> File:
        local = Path(file.url.removeprefix("file://"))
        sha256, size = file.sha256, 0
        if "://" not in file.url or file.url.startswith("file:"):
            if not local.is_file():
                raise InvalidInput(f"mirror_files: {file.name}: there is no file {local}.", "correct the path.")
            size, found = local.stat().st_size, digest(local)
            if sha256 and found != sha256:
                raise InvalidInput(
                    f"mirror_files: {local} has the sha256 {found}, not {sha256}.",
                    "fetch it once more, or correct the sha256.",
                )
            sha256 = found
        return File(
            file.path, size, sha256, file.kind, file.name, file.version, file.url,
            (file.needed_by or file.name,), architecture=file.architecture,
        )  # fmt: skip

    def _pip(self, name: str, argv: list[str], check_mode: bool) -> list[Path]:
        """Let pip download into a directory of the cache; one that is complete is used as it is."""
        directory = self.cache / "wheels" / name
        if not (directory / COMPLETE).exists():
            if check_mode:
                return []
            directory.mkdir(parents=True, exist_ok=True)
            self.say(f"wheels: {name}")
            code, out, err = self.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(directory), *argv], None
            )
            if code != 0:
                raise HpcError(f"pip can't fetch the wheels of {name}: {(err or out).strip()[-800:]}")
            (directory / COMPLETE).touch()
        return sorted(path for path in directory.iterdir() if path.name != COMPLETE)

    def _wheels(self, lock: Lock, wishes: Wishes, check_mode: bool) -> list[File]:
        """Return the wheels of a lock file, for the Python of the release."""
        text = lock.path.read_text(encoding="utf-8")
        machines = {
            one for target in wishes.hosts if target.release == lock.release for one in MACHINES[target.architecture]
        }
        python = Target(lock.release, "amd64").python
        found: dict[str, File] = {}
        for machine in sorted(machines):
            glibc = {"12": 36, "13": 41}[lock.release]
            platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(glibc, 4, -1)]
            platforms += [f"--platform=manylinux{old}_{machine}" for old in ("2014", "2010", "1")]
            options = ["--only-binary=:all:", "--no-deps", "--require-hashes", f"--python-version={python}", *platforms]
            name = f"debian{lock.release}-{machine}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
            for path in self._pip(name, [*options, "--requirement", str(lock.path)], check_mode):
                project, version = path.name.split("-")[:2]
                target = f"wheels/debian{lock.release}/{path.name}"
                found[target] = File(
                    target, path.stat().st_size, digest(path), "wheel", project, version, str(path),
                    (lock.needed_by,) if lock.needed_by else (), lock.release,
                )  # fmt: skip
        return list(found.values())

    def _controller(self, requirements: Sequence[Path], check_mode: bool) -> list[File]:
        """Return the wheels of the control node's own requirements, for a Python such as this one."""
        files = []
        for path in requirements:
            text = path.read_text(encoding="utf-8")
            python = f"{sys.version_info[0]}.{sys.version_info[1]}"
            name = f"controller-{python}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
            for wheel in self._pip(name, ["--only-binary=:all:", "--requirement", str(path)], check_mode):
                project, version = wheel.name.split("-")[:2]
                files.append(
                    File(
                        path=f"controller/{wheel.name}",
                        size=wheel.stat().st_size,
                        sha256=digest(wheel),
                        kind="controller",
                        name=project,
                        version=version,
                        source=str(wheel),
                        needed_by=("the control node",),
                    )
                )
        return files

    def _skopeo(self, *argv: str) -> str:
        code, out, err = self.run(["skopeo", *argv], None)
        if code == 127:
            raise HpcError(
                "There is no program skopeo on the control node, and mirror_images names images.",
                "apt-get install skopeo",
            )
        if code != 0:
            raise HpcError(
                f"skopeo {argv[0]}: {err.strip()[-600:]}", "check the image's name, and the access to its registry."
            )
        return out

    def _image(self, image: GivenImage, wishes: Wishes, before: Manifest, check_mode: bool) -> File:
        """Bring an image into the bundle, unless it is there as it is at its source."""
        path = image_path(image.reference)
        raw = self._skopeo("inspect", "--raw", image.where)
        source = f"{image.where} sha256:{hashlib.sha256(raw.encode()).hexdigest()}"
        for file in before.files:
            place = self.directory / path
            if (file.path, file.source) == (path, source) and place.is_file() and digest(place) == file.sha256:
                return file
        tag = image.reference.rpartition(":")[2] if "@" not in image.reference else ""
        file = File(
            path, 0, "0" * 64, "image", image.reference, tag, source, ("container_registry",), reference=image.reference
        )
        if check_mode:
            return file
        self.say(f"image {image.reference}")
        part = self.directory / path
        part.parent.mkdir(parents=True, exist_ok=True)
        part.unlink(missing_ok=True)
        architectures = sorted({target.architecture for target in wishes.hosts})
        which = ["--override-os=linux", f"--override-arch={architectures[0]}"] if len(architectures) == 1 else []
        copy = ["copy", "--quiet", *([] if which else ["--all"]), image.where, f"oci-archive:{part}"]
        self._skopeo(*which, *copy)
        name, found = look_into_image(part)
        if not found >= set(architectures):
            part.unlink()
            raise InvalidInput(
                f"mirror_images: {image.reference} is for {', '.join(sorted(found))}, and the hosts are "
                f"{', '.join(architectures)}.",
                "name an image that is for all of them.",
            )
        only = architectures[0] if len(architectures) == 1 else ""
        return replace(file, size=part.stat().st_size, sha256=digest(part), digest=name, architecture=only)

    def _intact(self, manifest: Manifest) -> bool:
        """Whether the bundle is as its manifest says, and its key's."""
        try:
            fingerprint = signature.fingerprint_of(self.key)
            places = (self.directory / MANIFEST, self.directory / SIGNATURE, self.directory / PUBLIC_KEY)
            signature.verify(self.run, *places, fingerprint)
        except HpcError:
            return False
        return not check_tree(manifest, scan(self.directory, {file.path: file.size for file in manifest.files}))

    def _seal(self, planned: Manifest, indices: Mapping[Target, tuple[list[Deb], str]]) -> Manifest:
        """Write indices, bill of materials, manifest and signatures; remove what doesn't belong there."""
        now = self.now()
        created = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        signature.make_key(self.run, self.key, planned.cluster)
        files = list(planned.files)
        with signature.signer(self.run, self.key) as signer:
            for path, content in self._indices(planned, indices, now, signer).items():
                kind = "wheel-index" if path.startswith("wheels/") else "apt-index"
                files.append(self._write(path, content, kind))
            manifest = replace(planned, created=created, files=tuple(files))
            bom = bill(manifest, now)
            manifest = replace(manifest, files=(*files, self._write(KINDS["sbom"], bom.encode(), "sbom")))
            text = dump(manifest)
            # What is written is what a reader takes.
            manifest = parse(text, str(self.directory / MANIFEST))
            self._prune(manifest)
            write_atomically(self.directory / MANIFEST, text.encode(), 0o644)
            write_atomically(self.directory / SIGNATURE, signer.detached(text).encode(), 0o644)
            write_atomically(self.directory / PUBLIC_KEY, signer.public().encode(), 0o644)
        refuse(str(self.directory), check_tree(manifest, scan(self.directory)))
        return manifest

    def _indices(
        self,
        planned: Manifest,
        indices: Mapping[Target, tuple[list[Deb], str]],
        now: datetime.datetime,
        signer: signature.Signer,
    ) -> dict[str, bytes]:
        result = {path: text.encode() for path, text in wheel_index(planned.of("wheel")).items()}
        codenames: dict[str, dict[str, bytes]] = {}
        for target, (debs, text) in indices.items():
            content = packages_index(debs, text, target.codename).encode()
            codenames.setdefault(target.codename, {})[f"main/binary-{target.architecture}/Packages"] = content
        for codename, lists in codenames.items():
            architectures = [path.split("/")[1].removeprefix("binary-") for path in lists]
            release = release_file(codename, architectures, now.strftime("%a, %d %b %Y %H:%M:%S UTC"), lists)
            result.update({f"apt/dists/{codename}/{path}": content for path, content in lists.items()})
            result[f"apt/dists/{codename}/InRelease"] = signer.inline(release).encode()
        return result

    def _write(self, path: str, content: bytes, kind: str) -> File:
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content, 0o644)
        return File(path, len(content), hashlib.sha256(content).hexdigest(), kind, path.split("/", 1)[-1])

    def _prune(self, manifest: Manifest) -> None:
        """Remove what an earlier build left."""
        listed = {file.path for file in manifest.files} | UNLISTED
        for path in sorted(self.directory.rglob("*"), reverse=True):
            if path.is_symlink() or not path.is_dir():
                if str(path.relative_to(self.directory)) not in listed:
                    path.unlink()
            elif not any(path.iterdir()):
                shutil.rmtree(path)


def _content(manifest: Manifest) -> Manifest:
    """Return a manifest without what is derived from the rest."""
    files = tuple(file for file in manifest.files if not file.kind.endswith("-index") and file.kind != "sbom")
    return replace(manifest, files=files)


def _identity(file: File) -> tuple[Any, ...]:
    return file.path, file.sha256, file.needed_by
