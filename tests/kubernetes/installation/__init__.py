"""A whole installation on a test's cluster: graph, gateway, Prometheus, planner pods, traffic, and someone who watches.

Graph and planner are objects that users would apply (rendered graphs, the Role and the Deployment of manifests/); the
fake kubelet runs the gateway's and the planners' real commands and simulated engines in their pods; Prometheus finds
the pods through the API server, as the gateway does.
"""
