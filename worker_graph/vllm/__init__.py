"""What a worker of a graph means as a `vllm serve` command: arguments, environment, ports."""

from worker_graph.vllm.command import Placement, WorkerCommand, vllm_command
from worker_graph.vllm.events import kv_event_port
from worker_graph.vllm.layout import layout, model_of

__all__ = ["Placement", "WorkerCommand", "kv_event_port", "layout", "model_of", "vllm_command"]
