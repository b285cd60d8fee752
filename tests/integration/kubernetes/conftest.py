"""The cluster, namespaces, kubelets, operators and proxies of `tests.kubernetes`."""

from tests.kubernetes.fixtures import api, control_plane, kubelet, namespace, operators, proxy

__all__ = ["api", "control_plane", "kubelet", "namespace", "operators", "proxy"]
