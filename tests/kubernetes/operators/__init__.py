"""Small operators for the custom resources of tests: LeaderWorkerSet, Grove, and the Dynamo operator.

They make real objects out of real objects, and do what the real ones do as far as a planner sees it; what they leave
out is said in each. `python -m tests.kubernetes.operators KUBECONFIG leaderworkerset grove dynamo-v1beta1`.
"""
