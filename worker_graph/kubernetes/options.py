"""What a rendering can be told, beside the graph."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

VLLM_IMAGE: Final = "vllm/vllm-openai:v0.26.0"
GATEWAY_IMAGE: Final = "lightseekorg/smg:1.13.0"


class Target(StrEnum):
    """What runs the graph's workers.

    `KUBERNETES`: Deployments, one node for each worker. `LWS`: LeaderWorkerSets for workers over several nodes,
    Deployments for the others. `GROVE`: one PodCliqueSet. `DYNAMO`: the DynamoGraphDeployment itself.
    """

    KUBERNETES = "kubernetes"
    LWS = "lws"
    GROVE = "grove"
    DYNAMO = "dynamo"


@dataclass(frozen=True)
class RenderOptions:
    """Options of a rendering.

    Attributes:
        namespace: of every object; None for the graph's own, and `default` where it has none.
        image: of workers whose image the graph does not name, or is one of Dynamo's, which stock vLLM does not need.
        gateway_image: the same of the gateway.
        longest_decode_s: seconds that the longest answer takes; None to work it out from the two below.
        max_output_tokens: of an answer; None for the worker's `--max-model-len`.
        itl_ms: inter-token latency at which the longest answer is still to be finished.
        startup_timeout_s: a worker must be healthy by then.
        model_cache_claim: PersistentVolumeClaim for model files and compiled kernels; None for a volume that lives as
            long as its pod.
        groups_for_all: with LWS, workers of one node too are LeaderWorkerSets.
        api_version: of the DynamoGraphDeployment, `v1alpha1` or `v1beta1`; None for the graph's own.
    """

    namespace: str | None = None
    image: str = VLLM_IMAGE
    gateway_image: str = GATEWAY_IMAGE
    longest_decode_s: float | None = None
    max_output_tokens: int | None = None
    itl_ms: float = 50.0
    startup_timeout_s: float = 1800.0
    model_cache_claim: str | None = None
    groups_for_all: bool = False
    api_version: str | None = None


def is_dynamo_image(image: str) -> bool:
    """Whether an image is one of Dynamo's runtime images, whose entry points speak Dynamo's own planes."""
    path = image.partition("@")[0].lower().split("/")
    name = path[-1].partition(":")[0]
    return "ai-dynamo" in path or name == "vllm-runtime" or name.startswith("dynamo")
