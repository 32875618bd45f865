#!/usr/bin/python
# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: airgap_bundle
version_added: "0.1.0"
short_description: Everything that a cluster without internet needs, in one signed directory
description:
  - Builds, verifies and compares bundles. It runs on the control node; see C(bundle.yml), which fills in its options.
  - A bundle is a directory with packages, wheels, images and other files, package lists for APT and pip, a bill of
    materials in CycloneDX, and C(manifest.json), which lists every file with its SHA-256 and is signed.
  - Debian packages come with all that they depend on, resolved by APT for the release and the architecture of the
    machines, whatever the control node itself runs.
  - Files are fetched at the same time, each with retries, and continued where they were cut off.
    Nothing is fetched twice.
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - apt, gpg and gpg-agent
  - pip, for O(locks) and O(controller_requirements)
  - skopeo, for O(images)
  - cyclonedx-python-lib (Python package), for O(state=present)
attributes:
  check_mode:
    support: full
    description: With O(state=present) it resolves packages and says what would be new. The other states change nothing.
  diff_mode:
    support: full
    description: Shows what comes, goes and changes, one line each.
  idempotent:
    support: full
    description: A bundle that is what it should be stays as it is, with its date and its signature.
options:
  path:
    description: Directory of the bundle.
    type: path
    required: true
  state:
    description:
      - V(present), the bundle is built, or brought up to date. What does not belong in it any more is removed.
      - V(verified), nothing is changed, and a bundle is refused that was not signed by the key, that lacks a file, has
        one too many, one that was altered or cut off, a link, a path that leads out of it, or that is not for O(hosts).
      - V(compared), nothing is changed, and RV(differences) says what differs from the bundle in O(other).
    type: str
    choices: [present, verified, compared]
    default: present
  other:
    description: With O(state=compared), the directory of the older bundle.
    type: path
  cluster_name:
    description: Name of the cluster.
    type: str
    default: turnkey
  hosts:
    description: What machines the bundle is for, one entry for each machine or each kind.
    type: list
    elements: dict
    default: []
    suboptions:
      release:
        description: Debian release.
        type: str
        choices: ["12", "13"]
        required: true
      architecture:
        description: Architecture, in Debian's words.
        type: str
        choices: [amd64, arm64]
        required: true
      packages:
        description: Names of packages, by the role that needs them.
        type: dict
        default: {}
  apt_sources:
    description: Where Debian's packages are, each as an address, a suite and components. C({codename}) is filled in.
    type: list
    elements: str
    default: []
  files:
    description: Other files.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is a part of, such as V(k3s).
        type: str
        required: true
      version:
        description: Its version.
        type: str
        required: true
      url:
        description: Where it is, an address or a path on the control node.
        type: str
        required: true
      sha256:
        description: Its SHA-256. Needed for an address.
        type: str
        default: ""
      kind:
        description: What it is. A V(file) gets the path C(files/NAME/VERSION/...).
        type: str
        choices: [file, chart, npm, collection]
        default: file
      architecture:
        description: The architecture that it is for, if it is for one only.
        type: str
        default: ""
      needed_by:
        description: Who needs it. Without it, O(files[].name).
        type: str
        default: ""
  images:
    description: Container images.
    type: list
    elements: dict
    default: []
    suboptions:
      reference:
        description: Name with tag or digest, such as V(docker.io/library/busybox:1.36).
        type: str
        required: true
      source:
        description:
          - Where skopeo finds it, such as V(docker-archive:/tmp/busybox.tar). Without it, the registry of its name.
        type: str
        default: ""
  locks:
    description: Python packages for the machines, as files of requirements with hashes.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      release:
        description: Debian release whose Python they are for.
        type: str
        choices: ["12", "13"]
        required: true
      needed_by:
        description: Who needs them.
        type: str
        default: ""
  controller_requirements:
    description:
      - Files of requirements of a control node without internet. Their wheels are for a Python like the one that
        runs here.
    type: list
    elements: path
    default: []
  key_dir:
    description:
      - Directory of the key that signs, C(key.asc) (mode 0600) and C(fingerprint). It is made when there is none.
      - With O(state=verified), where the fingerprint is if O(fingerprint) does not say it.
    type: path
  fingerprint:
    description: With O(state=verified), the fingerprint of the key, as O(state=present) returned it.
    type: str
    default: ""
  cache_dir:
    description: Directory for package lists and wheels, so that they are not fetched again.
    type: path
    default: ~/.cache/turnkey/bundle
  progress_file:
    description: Set by the action plugin. Not for use in tasks.
    type: path
"""

EXAMPLES = r"""
- name: Build a bundle for machines with Debian 12
  turnkey.hpc.airgap_bundle:
    path: /srv/bundles/lab
    cluster_name: lab
    key_dir: .secrets/bundle
    apt_sources: ["http://deb.debian.org/debian {codename} main"]
    hosts:
      - {release: "12", architecture: amd64, packages: {baseline: [chrony, less]}}

- name: Verify it where there is no internet
  turnkey.hpc.airgap_bundle:
    path: /media/usb/lab
    state: verified
    fingerprint: 7A4C 0B7D 21E9 5A3B 8F60 1B1C 95D1 7E44 0C1D 2B3F

- name: See what is new in it
  turnkey.hpc.airgap_bundle:
    path: /media/usb/lab
    state: compared
    other: /srv/bundles/lab
  register: difference
"""

RETURN = r"""
fingerprint:
  description: Fingerprint of the key that signed the bundle.
  returned: with O(state=present) and O(state=verified)
  type: str
  sample: 7A4C0B7D21E95A3B8F601B1C95D17E440C1D2B3F
created:
  description: When the bundle was built.
  returned: always
  type: str
  sample: "2026-11-22T16:00:00Z"
files:
  description: Number of files.
  returned: always
  type: int
  sample: 312
bytes:
  description: Their size.
  returned: always
  type: int
  sample: 240000000
targets:
  description: Releases and architectures that the bundle is for.
  returned: always
  type: list
  elements: str
  sample: [12 amd64]
manifest_sha256:
  description: Digest of the manifest.
  returned: with O(state=present) and O(state=verified), not in check mode
  type: str
  sample: 562e4f5e1204abeed4d240cf031147a824ae21a2a672f4004b5876b1d6fdb81d
differences:
  description: What came, went and changed, from what was there before or from O(other).
  returned: with O(state=present) and O(state=compared)
  type: list
  elements: str
  sample: ["+ deb less 590-2.1 (Debian 12)"]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle import signature
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.build import (
    Builder,
    GivenFile,
    GivenImage,
    Lock,
    Wishes,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import (
    MANIFEST,
    PUBLIC_KEY,
    SIGNATURE,
    Manifest,
    Target,
    check_targets,
    check_tree,
    compare,
    parse,
    refuse,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.tree import digest, scan
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput, errors_end
from ansible_collections.turnkey.hpc.plugins.module_utils._state import Run, runner


def targets_of(hosts: list[dict[str, Any]]) -> dict[Target, list[dict[str, list[str]]]]:
    """Return the packages of the hosts by kind of machine."""
    found: dict[Target, list[dict[str, list[str]]]] = {}
    for host in hosts:
        found.setdefault(Target(host["release"], host["architecture"]), []).append(host.get("packages") or {})
    return found


def read(path: Path) -> Manifest:
    """Read the manifest of a bundle that is not verified."""
    try:
        return parse((path / MANIFEST).read_text(encoding="utf-8"), str(path / MANIFEST))
    except OSError as error:
        raise InvalidInput(
            f"{path} is no bundle: {MANIFEST}: {error.strerror}.", "name the directory of a bundle."
        ) from error


def figures(manifest: Manifest) -> dict[str, Any]:
    """Return what a bundle amounts to."""
    return {
        "created": manifest.created,
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
        "targets": [f"{target.release} {target.architecture}" for target in manifest.targets],
    }


def build(run: Run, given: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Build a bundle."""
    path, key = Path(given["path"]), Path(given["key_dir"])
    wishes = Wishes(
        given["cluster_name"],
        targets_of(given["hosts"]),
        given["apt_sources"],
        [GivenFile(**one) for one in given["files"]],
        [GivenImage(**one) for one in given["images"]],
        [Lock(Path(one["path"]), one["release"], one["needed_by"]) for one in given["locks"]],
        [Path(one) for one in given["controller_requirements"]],
    )

    def say(text: str) -> None:
        if given["progress_file"]:
            with Path(given["progress_file"]).open("a", encoding="utf-8") as stream:
                stream.write(f"{text}\n")

    manifest, difference = Builder(run, path, key, Path(given["cache_dir"]), say).build(wishes, check_mode)
    result = {
        **figures(manifest),
        "changed": bool(difference.lines),
        "differences": difference.lines,
        "fingerprint": signature.fingerprint_of(key),
        "diff": {"before": "", "after": "".join(f"{line}\n" for line in difference.lines)},
    }
    if not check_mode:
        result["manifest_sha256"] = digest(path / MANIFEST)
    return result


def verify(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """Verify a bundle: the signature first, as nothing else can be believed before."""
    path = Path(given["path"])
    fingerprint = signature.normal_fingerprint(given["fingerprint"]) if given["fingerprint"] else ""
    if not fingerprint and given["key_dir"]:
        fingerprint = signature.fingerprint_of(Path(given["key_dir"]))
    if not fingerprint:
        raise InvalidInput(
            f"Nothing says whose signature {path} should have.",
            "set mirror_bundle_fingerprint to what bundle.yml showed when it made the bundle.",
        )
    signature.verify(run, path / MANIFEST, path / SIGNATURE, path / PUBLIC_KEY, fingerprint)
    manifest = read(path)
    found = scan(path, {file.path: file.size for file in manifest.files})
    refuse(str(path), check_tree(manifest, found) + check_targets(manifest, targets_of(given["hosts"])))
    return {
        **figures(manifest),
        "changed": False,
        "fingerprint": fingerprint,
        "manifest_sha256": digest(path / MANIFEST),
    }


def diff(given: dict[str, Any]) -> dict[str, Any]:
    """Compare two bundles."""
    new = read(Path(given["path"]))
    lines = compare(read(Path(given["other"])), new).lines
    text = "".join(f"{line}\n" for line in lines)
    return {**figures(new), "changed": False, "differences": lines, "diff": {"before": "", "after": text}}


def main() -> None:
    """Run the module."""
    text = {"type": "str", "default": ""}
    wanted = {"type": "str", "required": True}
    release = {"type": "str", "choices": ["12", "13"], "required": True}
    module = AnsibleModule(
        {
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "verified", "compared"], "default": "present"},
            "other": {"type": "path"},
            "cluster_name": {"type": "str", "default": "turnkey"},
            "hosts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "release": release,
                    "architecture": {"type": "str", "choices": ["amd64", "arm64"], "required": True},
                    "packages": {"type": "dict", "default": {}},
                },
            },
            "apt_sources": {"type": "list", "elements": "str", "default": []},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": wanted,
                    "version": wanted,
                    "url": wanted,
                    "sha256": text,
                    "kind": {"type": "str", "choices": ["file", "chart", "npm", "collection"], "default": "file"},
                    "architecture": text,
                    "needed_by": text,
                },
            },
            "images": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"reference": wanted, "source": text},
            },
            "locks": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"path": {"type": "path", "required": True}, "release": release, "needed_by": text},
            },
            "controller_requirements": {"type": "list", "elements": "path", "default": []},
            "key_dir": {"type": "path", "no_log": False},
            "fingerprint": text,
            "cache_dir": {"type": "path", "default": "~/.cache/turnkey/bundle"},
            "progress_file": {"type": "path"},
        },
        required_if=[("state", "present", ["key_dir"]), ("state", "compared", ["other"])],
        supports_check_mode=True,
    )
    run = runner(module.run_command)
    with errors_end(module):
        if module.params["state"] == "present":
            result = build(run, module.params, module.check_mode)
        elif module.params["state"] == "verified":
            result = verify(run, module.params)
        else:
            result = diff(module.params)
    if not module._diff:
        result.pop("diff", None)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
