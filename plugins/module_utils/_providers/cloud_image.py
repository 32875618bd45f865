# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Golden images of a cloud: made from the one machine of a cluster made for that, found by tag, pruned by policy."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .._errors import HpcError
from .._images import expired_builds
from .base import Invalid, NotReady
from .cloud import INPUTS, CloudProvider
from .plan import plan_absent

__all__ = ["IMAGE_OF", "CloudImage", "ImageCloud", "to_prune"]

IMAGE_OF = "turnkey:image-of"
"""Tag of images: the name that the versions of an image have in common."""

IMAGE_PATIENCE = 6  # times as long as for a machine

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class CloudImage:
    """A version of an image. ``state`` is pending, ready or failed; ``created`` sorts as text."""

    id: str
    name: str
    image_of: str
    inputs: str
    created: str
    state: str
    used: bool = False
    snapshots: tuple[str, ...] = ()


class ImageCloud(CloudProvider, ABC):
    """A cloud that makes images. The abstract methods are a few calls each; what to do when is decided here."""

    @abstractmethod
    def images(self) -> list[CloudImage]:
        """Return our own images that carry our tag."""

    @abstractmethod
    def create_image(self, identity: str, name: str, tags: Mapping[str, str]) -> str:
        """Begin to make an image of a stopped machine, and return its id."""

    @abstractmethod
    def delete_image(self, image: CloudImage) -> None:
        """Remove an image; what it was stored in becomes an orphan."""

    @abstractmethod
    def orphans(self) -> list[str]:
        """Return the snapshots with our tag that no image is stored in any more."""

    @abstractmethod
    def delete_snapshot(self, identity: str) -> None:
        """Remove a snapshot."""

    def published(self, image_of: str, inputs: str) -> bool:
        """Tell whether there is an image with these inputs that can be used."""
        return any((i.image_of, i.inputs, i.state) == (image_of, inputs, "ready") for i in self._all_images())

    def publish(self, cluster: str, image_of: str, inputs: str) -> CloudImage:
        """Make an image of the only machine of a cluster and wait for it; one with these inputs isn't made twice."""
        if not _NAME.fullmatch(image_of):
            raise Invalid(f"image name {image_of!r} can't be used.", "Give up to 63 characters a-z, 0-9 and '-'.")
        made = [image for image in self._all_images() if (image.image_of, image.inputs) == (image_of, inputs)]
        identity = next((image.id for image in made if image.state != "failed"), "")
        if not identity:
            machines = self.list_instances(cluster)
            if len(machines) != 1:
                raise Invalid(f"cluster {cluster} has {len(machines)} machines, and an image is made from one.")
            if machines[0].running:
                self.stop(cluster, [machines[0].name])
            tags = {IMAGE_OF: image_of, INPUTS: inputs}
            name = f"{image_of}-{inputs}"
            identity = self.patient(lambda: self.create_image(machines[0].id, name, tags))

        def look() -> CloudImage:
            image = next((image for image in self._all_images() if image.id == identity), None)
            if image is None or image.state == "pending":
                raise NotReady(f"image {identity} isn't ready yet.")
            if image.state == "failed":
                raise HpcError(f"the cloud could not make image {identity} of cluster {cluster}.", "Try it again.")
            return image

        return self.timing.poll(look, self.timing.ready_seconds * IMAGE_PATIENCE)

    def prune(self, image_of: str, keep: int) -> list[CloudImage]:
        """Remove the versions of an image that are too many, and return them; remove what earlier prunings left."""
        doomed = to_prune(self._all_images(), image_of, keep)
        for image in doomed:
            self.until_gone(lambda image=image: self.delete_image(image))  # type: ignore[misc]
        for snapshot in self.patient(self.orphans):
            self.until_gone(lambda snapshot=snapshot: self.delete_snapshot(snapshot))  # type: ignore[misc]
        return doomed

    def sweep(self, now: float) -> list[str]:
        """Remove the builds whose time is over, since their runs were killed, and return their names."""
        names = expired_builds(self.clusters(), now)
        for name in names:
            self.apply(plan_absent(self.discover(name)))
        return names

    def _all_images(self) -> list[CloudImage]:
        return self.patient(self.images)


def to_prune(images: Iterable[CloudImage], image_of: str, keep: int) -> list[CloudImage]:
    """Return the versions of an image that are too many: all but the newest ``keep``; none that is used. Pure."""
    versions = sorted(
        (image for image in images if image.image_of == image_of), key=lambda image: image.created, reverse=True
    )
    kept = [image for image in versions if image.state == "ready"][: max(keep, 1)]
    return [image for image in versions if image not in kept and not image.used and image.state != "pending"]
