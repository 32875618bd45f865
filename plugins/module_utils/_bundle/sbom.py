# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bill of materials of a bundle, in CycloneDX."""

from __future__ import annotations

import datetime
import hashlib
import traceback
import uuid

from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import File, Manifest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError

try:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot5
    from packageurl import PackageURL

    CYCLONEDX_IMPORT_ERROR: str | None = None
except ImportError:  # told to the user by bill()
    CYCLONEDX_IMPORT_ERROR = traceback.format_exc()

__all__ = ["bill"]

# Package types of https://github.com/package-url/purl-spec
TYPES = {
    "deb": "deb",
    "wheel": "pypi",
    "controller": "pypi",
    "npm": "npm",
    "image": "oci",
    "chart": "helm",
    "collection": "generic",
    "file": "generic",
}


def _purl(file: File) -> PackageURL:
    qualifiers = {"arch": file.architecture, "distro": f"debian-{file.release}" if file.release else ""}
    name, version = file.name, file.version
    if file.kind == "image":
        name, version = file.reference.rpartition("/")[2].split("@")[0].split(":")[0], file.digest
    return PackageURL(
        type=TYPES[file.kind],
        namespace="debian" if file.kind == "deb" else None,
        name=name,
        version=version or None,
        qualifiers={key: value for key, value in qualifiers.items() if value} or None,
    )


def bill(manifest: Manifest, now: datetime.datetime) -> str:
    """Return the bill of all that is in the manifest and was made by others."""
    if CYCLONEDX_IMPORT_ERROR is not None:
        raise HpcError(
            "The Python library cyclonedx-python-lib is missing on the control node.",
            "pip install -r requirements-airgap.txt, into the Python that runs Ansible.",
        )
    components = [
        Component(
            name=file.name,
            version=file.version or None,
            type=ComponentType.CONTAINER if file.kind == "image" else ComponentType.LIBRARY,
            bom_ref=file.path,
            purl=_purl(file),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
            properties=[Property(name="turnkey:needed_by", value=" ".join(file.needed_by))] if file.needed_by else [],
        )
        for file in manifest.files
        if file.kind in TYPES
    ]
    bom = Bom(components=components)
    bom.metadata.timestamp = now
    whole = Component(
        name=f"{manifest.cluster} bundle", version=manifest.created, type=ComponentType.APPLICATION, bom_ref="bundle"
    )
    bom.metadata.component = whole
    bom.register_dependency(whole, components)
    content = "".join(sorted(f"{file.path} {file.sha256}\n" for file in manifest.files))
    bom.serial_number = uuid.UUID(bytes=hashlib.sha256(content.encode()).digest()[:16], version=4)
    return JsonV1Dot5(bom).output_as_string(indent=1) + "\n"
