"""A Kubernetes cluster for tests: a real control plane, nodes that are objects only, and a fake kubelet that runs pods.

`make kubernetes` builds etcd, API server, controller-manager and scheduler once, into a cache. KUBEBUILDER_ASSETS may
name a folder with others instead (the last two may be missing there), and PLIMSOLL_TEST_KUBECONFIG, or KUBECONFIG with
PLIMSOLL_TEST_USE_KUBECONFIG=1, a cluster that runs already; tests that a cluster cannot serve skip and say why.

Fixtures (`fixtures`; a conftest imports those it wants: `from tests.kubernetes.fixtures import control_plane, …`):

- `control_plane` (session): a `cluster.Cluster`; `control_plane.ControlPlane` unless one is named. `.kubeconfig`,
  `.client()`, `.kubeconfig_for(USER, GROUPS)`, `.kubeconfig_for_service_account(NAMESPACE, NAME)`, `.audit_mark()` and
  `.audit(MARK, user=, namespace=)` for the API calls that were made, `.kill_api_server()`, `.stop_api_server()`,
  `.start_api_server()`, `.pause_api_server()`, `.resume_api_server()`; `.scheduler` and `.controllers` are `Program`s.
- `api`: a client of the administrator (`kubernetes.client.ApiClient`).
- `namespace`: name of a namespace of the test's own.
- `kubelet`: starts the test's fake kubelet: `kubelet(Node("gpu-a", 8), delay_s=0.5)`; the handle can `add_nodes`,
  `remove_node`, read a container's `log`, and its `program` be killed and started again. One at a time per cluster.
- `operators`: installs definitions and runs their operators: `operators("leaderworkerset", "grove")`; see `crds.NAMES`.
- `proxy`: a `proxy.Proxy` in front of the API server. `proxy.kubeconfig(OF)` leads through it; `answer(409, times=2,
  method="PATCH", path="…")`, `delay`, `lose_answer`, `break_watches`, `hang`, `cut`, `sever(POD)`, `drop_connections`,
  `heal`.

For other scopes: the context managers `fixtures.running_kubelet`, `running_operators` and `new_namespace`,
`proxy.running_proxy`, and `control_plane.ControlPlane`.

What a pod does is said by its annotations (`annotations`): delays, crashes, drains, a simulated engine at the pod's own
address, or its containers' commands run on this machine (`commands`). A server before 1.21 drops `completionMode`:
`job_index` gives pods of Jobs their index there.
"""
