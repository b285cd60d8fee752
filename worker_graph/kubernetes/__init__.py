"""Graphs as Kubernetes objects: Deployments, LeaderWorkerSets, Grove PodCliqueSets, Dynamo graphs."""
