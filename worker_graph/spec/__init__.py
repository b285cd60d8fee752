"""Graphs of workers as users write them: DynamoGraphDeployment, v1alpha1 and v1beta1, in one form."""

from worker_graph.spec.graph import Component, GraphSpec, Kind, Role
from worker_graph.spec.locally import Severity, Unsupported, unsupported_locally
from worker_graph.spec.read import load_graph
from worker_graph.spec.words import Word, words_of
from worker_graph.spec.write import with_replicas

__all__ = [
    "Component",
    "GraphSpec",
    "Kind",
    "Role",
    "Severity",
    "Unsupported",
    "Word",
    "load_graph",
    "unsupported_locally",
    "with_replicas",
    "words_of",
]
