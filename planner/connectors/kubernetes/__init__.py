"""Graphs on Kubernetes: pools that are Deployments, LeaderWorkerSets, Grove cliques or parts of a Dynamo graph."""
