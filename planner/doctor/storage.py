"""Storage for the profiling Job: a default StorageClass, and one whose volumes several nodes may write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from planner.connectors.kubernetes.errors import ForbiddenError
from planner.connectors.kubernetes.resources import Resource
from planner.doctor.base import Check, passed, skipped, some, warned
from planner.doctor.scene import Scene

STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)

#: Provisioners of file systems that many nodes mount for writing. No field of the API says it.
SHARED = (
    "nfs", "efs.csi.aws.com", "fsx.csi.aws.com", "filestore.csi", "file.csi.azure.com", "azure-file", "cephfs",
    "juicefs", "gluster", "beegfs", "lustre", "weka", "vast", "gpfs", "spectrumscale", "quobyte", "trident", "portworx",
    "longhorn", "manila", "purestorage",
)  # fmt: skip

_DEFAULT = "storageclass.kubernetes.io/is-default-class"


def storage(scene: Scene) -> Iterable[Check]:
    """The cluster's StorageClasses."""
    try:
        classes = scene.api().list(STORAGE_CLASSES).items
    except ForbiddenError as error:
        return [skipped("storage", f"not looked at: {error}", "ask as somebody who may list StorageClasses")]
    return list(judge_classes(classes))


def judge_classes(classes: Sequence[Mapping[str, Any]]) -> Iterator[Check]:
    """What they can be used for."""
    names = {str(one["metadata"]["name"]): one for one in classes}
    beta = "storageclass.beta.kubernetes.io/is-default-class"
    marks = {name: one["metadata"].get("annotations") or {} for name, one in names.items()}
    default = [name for name, mark in marks.items() if "true" in {mark.get(_DEFAULT), mark.get(beta)}]
    patch = '\'{"metadata":{"annotations":{"' + _DEFAULT + '":"true"}}}\''
    if not default:
        have = f"none of {some(sorted(names))} is the default" if names else "there is no StorageClass"
        fix = f"kubectl patch storageclass NAME -p {patch}; or name one in each claim"
        yield warned("default storage", have, fix)
    elif len(default) > 1:
        fix = f"take the mark off all but one: kubectl patch storageclass NAME -p {patch.replace('true', 'false')}"
        yield warned("default storage", f"{len(default)} StorageClasses are the default: {some(sorted(default))}", fix)
    else:
        yield passed("default storage", default[0])
    shared = [name for name, one in names.items() if any(word in str(one.get("provisioner", "")) for word in SHARED)]
    if shared:
        yield passed("shared storage", f"{some(sorted(shared))} should give ReadWriteMany")
    else:
        text = "no StorageClass is known to give volumes that several nodes may write (ReadWriteMany)"
        fix = "for a profiling Job over several nodes: NFS, CephFS or the cloud's files; one node needs none"
        yield warned("shared storage", text, fix)
