"""The flags that are read, and those of Dynamo that stock vLLM has no counterpart for.

Every flag in neither table is vLLM's own business and passed on as it is written.
"""

from __future__ import annotations

from enum import Enum


class Takes(Enum):
    """How many values a flag takes."""

    NONE = 0
    ONE = 1
    ANY = 2


#: vLLM's short forms of the flags that are read.
SHORT = {
    "-tp": "--tensor-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dp": "--data-parallel-size",
    "-dpr": "--data-parallel-rank",
    "-dpn": "--data-parallel-rank",
    "-dpl": "--data-parallel-size-local",
}

#: Flags that are read here, their own and Dynamo's.
READ = {
    "--model": Takes.ONE,
    "--served-model-name": Takes.ANY,
    "--host": Takes.ONE,
    "--port": Takes.ONE,
    "--tensor-parallel-size": Takes.ONE,
    "--pipeline-parallel-size": Takes.ONE,
    "--data-parallel-size": Takes.ONE,
    "--data-parallel-size-local": Takes.ONE,
    "--data-parallel-rank": Takes.ONE,
    "--enable-prefix-caching": Takes.NONE,
    "--no-enable-prefix-caching": Takes.NONE,
    "--block-size": Takes.ONE,
    "--kv-transfer-config": Takes.ONE,
    "--kv-events-config": Takes.ONE,
    "--config": Takes.ONE,
    "--is-prefill-worker": Takes.NONE,
    "--is-decode-worker": Takes.NONE,
    "--no-is-prefill-worker": Takes.NONE,
    "--no-is-decode-worker": Takes.NONE,
    "--disaggregation-mode": Takes.ONE,
    "--connector": Takes.ANY,
    "--custom-jinja-template": Takes.ONE,
}

#: Dynamo's flags about its own runtime (discovery, planes, its frontend's parsers): dropped with a note. Any `--dyn-…`
#: counts as one.
DYNAMO_RUNTIME = {
    "--migration-limit": Takes.ONE,
    "--store-kv": Takes.ONE,
    "--discovery-backend": Takes.ONE,
    "--request-plane": Takes.ONE,
    "--response-plane": Takes.ONE,
    "--event-plane": Takes.ONE,
    "--namespace": Takes.ONE,
    "--endpoint": Takes.ONE,
    "--endpoint-types": Takes.ONE,
    "--kv-state-endpoint": Takes.ONE,
    "--enable-local-indexer": Takes.ANY,
    "--no-enable-local-indexer": Takes.NONE,
    "--durable-kv-events": Takes.ANY,
    "--no-durable-kv-events": Takes.NONE,
    "--use-vllm-tokenizer": Takes.NONE,
    "--no-use-vllm-tokenizer": Takes.NONE,
    "--sleep-mode-level": Takes.ONE,
    "--dump-config-to": Takes.ONE,
    "--output-modalities": Takes.ANY,
    "--health-check-payload": Takes.ONE,
    "--engine-request-limit": Takes.ONE,
    "--fpm-trace": Takes.NONE,
    "--no-fpm-trace": Takes.NONE,
    "--exclude-tools-when-tool-choice-none": Takes.NONE,
    "--no-exclude-tools-when-tool-choice-none": Takes.NONE,
    "--mm-prompt-template": Takes.ONE,
    "--frontend-decoding": Takes.NONE,
    "--no-frontend-decoding": Takes.NONE,
}

#: Dynamo's flags that make a worker something other than a server of one language model.
DYNAMO_ROLES = {
    "--multimodal-processor",
    "--multimodal-encode-worker",
    "--multimodal-worker",
    "--multimodal-decode-worker",
    "--multimodal-encode-prefill-worker",
    "--route-to-encoder",
    "--embedding-worker",
    "--omni",
}


def is_dynamo_only(name: str) -> bool:
    """Whether a flag is Dynamo's and has no counterpart in vLLM."""
    return name in DYNAMO_RUNTIME or name.startswith(("--dyn-", "--no-dyn-"))


def takes(name: str) -> Takes:
    """How many values a flag takes; ANY for those that are not known here."""
    return READ.get(name) or DYNAMO_RUNTIME.get(name) or (Takes.NONE if name in DYNAMO_ROLES else Takes.ANY)
