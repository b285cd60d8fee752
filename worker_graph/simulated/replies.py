"""Answers in vLLM's form. The text is one word a token, so that a client can count them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from worker_graph.simulated.protocol import Ask

_WORD = " word"
DONE = b"data: [DONE]\n\n"


class Reply:
    """The parts of one answer.

    Args:
        ask: what was asked for.
        name: the request's id, without the prefix that the kind of answer gets.
        model: the model's name.
    """

    def __init__(self, ask: Ask, name: str, model: str) -> None:
        self.ask = ask
        self.id = f"{'chatcmpl' if ask.chat else 'cmpl'}-{name}"
        self._model = model
        self._created = int(time.time())
        # Everything but the text and the reason is the same in each chunk of a stream.
        marks = {"text": "\0", "finish": "\1"}
        head, rest = json.dumps(self._chunk(marks["text"], marks["finish"])).split(json.dumps("\0"))
        middle, end = rest.split(json.dumps("\1"))
        self._head, self._middle, self._end = f"data: {head}", middle, f"{end}\n\n"

    def usage(self, tokens: int) -> dict[str, Any]:
        """Token counts."""
        isl = self.ask.isl
        return {
            "prompt_tokens": isl,
            "total_tokens": isl + tokens,
            "completion_tokens": tokens,
            "prompt_tokens_details": None,
        }

    def whole(self, tokens: int, finish: str, kv_transfer_params: Mapping[str, Any] | None) -> dict[str, Any]:
        """An answer that is not streamed."""
        text = (_WORD * tokens)[1:]
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        if self.ask.chat:
            choice["message"] = {"role": "assistant", "content": text, "tool_calls": []}
        else:
            choice |= {"text": text, "prompt_logprobs": None}
        return {
            "id": self.id,
            "object": "chat.completion" if self.ask.chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
            "usage": self.usage(tokens),
            "kv_transfer_params": kv_transfer_params,
        }

    def first(self) -> bytes:
        """What comes before the first token."""
        if not self.ask.chat:
            return b""
        chunk = self._chunk("", None)
        chunk["choices"][0]["delta"] = {"role": "assistant", "content": ""}
        return _event(chunk)

    def part(self, before: int, tokens: int, finish: str | None) -> bytes:
        """A chunk with the tokens after the first `before` up to `tokens`."""
        text = _WORD * (tokens - before)
        words = text if before else text[1:]
        reason = "null" if finish is None else f'"{finish}"'
        if not self.ask.continuous_usage:
            return f'{self._head}"{words}"{self._middle}{reason}{self._end}'.encode()
        return _event({**self._chunk(words, finish), "usage": self.usage(tokens)})

    def last(self, tokens: int) -> bytes:
        """What comes after the last token."""
        if not self.ask.usage:
            return DONE
        return _event({**self._chunk("", None), "choices": [], "usage": self.usage(tokens)}) + DONE

    def _chunk(self, text: str, finish: str | None) -> dict[str, Any]:
        content: dict[str, Any] = {"delta": {"content": text}} if self.ask.chat else {"text": text}
        return {
            "id": self.id,
            "object": "chat.completion.chunk" if self.ask.chat else "text_completion",
            "created": self._created,
            "model": self._model,
            "choices": [{"index": 0, **content, "logprobs": None, "finish_reason": finish, "stop_reason": None}],
        }


def _event(chunk: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()
