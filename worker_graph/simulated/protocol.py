"""What clients ask for, in vLLM's (OpenAI's) words, and what is wrong with it, in vLLM's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: vLLM's default for completions; a chat goes on to the model's length.
DEFAULT_MAX_TOKENS = 16


class ApiError(Exception):
    """An answer with vLLM's JSON error."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def bad_request(message: str, param: str | None = None) -> ApiError:
    """HTTP 400."""
    return ApiError(400, "BadRequestError", message, param)


@dataclass(frozen=True)
class Ask:
    """A completion or a chat that was asked for; lengths in tokens."""

    chat: bool
    isl: int
    max_tokens: int
    stream: bool = False
    usage: bool = False
    continuous_usage: bool = False
    kv_transfer_params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hand_off(self) -> bool:
        """Whether the prompt's KV is to be kept for a decode engine."""
        return bool(self.kv_transfer_params.get("do_remote_decode")) and self.max_tokens == 1


def read_json(body: bytes) -> dict[str, Any]:
    """The request's body.

    Raises:
        ApiError: it is not a JSON object.
    """
    try:
        value = json.loads(body)
    except ValueError as error:
        raise bad_request(f"Invalid JSON: {error}") from None
    if not isinstance(value, dict):
        raise bad_request("Input should be a valid dictionary")
    return value


def tokens_of(text: str) -> int:
    """Tokens of a text: its words. The simulated engine has no tokenizer."""
    return len(text.split())


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a completion's `prompt`: a string, a list of token ids, or a list of one of either."""
    prompt = body.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise bad_request("This engine is simulated and answers one prompt a request.", "prompt")
        prompt = prompt[0]
    if isinstance(prompt, str):
        return tokens_of(prompt)
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return len(prompt)
    raise bad_request("prompt: a string or a list of token ids is required", "prompt")


def chat_tokens(body: Mapping[str, Any]) -> int:
    """Tokens of a chat's `messages`: the words of their texts; no chat template is added."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages: a list of messages is required", "messages")
    total = 0
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise bad_request("messages: each needs a role and a content", "messages")
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content or ""}]
        for part in parts:
            text = part.get("text", "") if isinstance(part, dict) else part
            if not isinstance(text, str):
                raise bad_request("messages: content must be text", "messages")
            total += tokens_of(text)
    return total


def check_model(body: Mapping[str, Any], model: str) -> None:
    """Raise vLLM's 404 for another model than the one served."""
    asked = body.get("model")
    if asked not in (None, model):
        raise ApiError(404, "NotFoundError", f"The model `{asked}` does not exist.", "model")


def read_ask(body: Mapping[str, Any], *, chat: bool, model: str, max_model_len: int) -> Ask:
    """A request for text.

    Raises:
        ApiError: vLLM would refuse it, or it asks for what the simulated engine cannot do (`n` other than 1).
    """
    check_model(body, model)
    isl = chat_tokens(body) if chat else prompt_tokens(body)
    if isl == 0:
        raise bad_request("The decoder prompt cannot be empty", "prompt")
    if isl >= max_model_len:
        raise bad_request(
            f"This model's maximum context length is {max_model_len} tokens. However, your request has {isl} input "
            "tokens. Please reduce the length of the input messages.",
            "input_tokens",
        )
    if body.get("n") not in (None, 1):
        raise bad_request("This engine is simulated and answers n=1 only.", "n")
    asked = _integer(body, "max_completion_tokens", 1) if chat else None
    if asked is None:
        asked = _integer(body, "max_tokens", 1)
    if asked is not None and isl + asked > max_model_len:
        raise bad_request(
            f"'max_tokens' or 'max_completion_tokens' is too large: {asked}. This model's maximum context length is "
            f"{max_model_len} tokens and your request has {isl} input tokens ({asked} > {max_model_len} - {isl}).",
            "max_tokens",
        )
    room = max_model_len - isl
    max_tokens = asked or (room if chat else min(DEFAULT_MAX_TOKENS, room))
    least = _integer(body, "min_tokens", 0) or 0
    if least > max_tokens:
        raise bad_request(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {least}.")
    stream = _boolean(body, "stream")
    options = _object(body, "stream_options")
    if options and not stream:
        raise bad_request("Stream options can only be defined when `stream=True`.", "stream_options")
    usage = _boolean(options, "include_usage")
    each = usage and _boolean(options, "continuous_usage_stats")
    return Ask(chat, isl, max_tokens, stream, usage, each, _object(body, "kv_transfer_params"))


def _integer(body: Mapping[str, Any], name: str, least: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise bad_request(f"{name}: Input should be a valid integer", name)
    if value < least:
        raise bad_request(f"{name} must be at least {least}, got {value}.", name)
    return value


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value not in (None, True, False):
        raise bad_request(f"{name}: Input should be a valid boolean", name)
    return bool(value)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(f"{name}: Input should be a valid dictionary", name)
    return value
