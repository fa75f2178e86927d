"""How does one generated output grow, and where does it go?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from model_compose.drivers.contract import CancelToken, Sink
from model_compose.drivers.huggingface.text import Detokenizer, Stops
from model_compose.tasks.generation import Completion, Generation, TextDelta
from model_compose.tasks.text_generation.huggingface.sampling import Sampler
from model_compose.types import FinishReason, Usage


class Splits(Protocol):
    """How calls of tools stand in an answer; see `tasks/chat_completion/tool_calls.py`."""

    def text_before(self, text: str) -> str: ...

    def split(self, text: str) -> tuple[str, list[dict[str, Any]]]: ...


class Output:
    """One output of a request: a member of the lineup, and the text that came of it so far.

    continues  the output continues the text of the prompt, as that of a decoder does
    splits     tells calls of tools from the text that is for people, where tools were given
    ended      called once, with None or the error that ended it
    """

    def __init__(
        self,
        request: Generation,
        index: int,
        prompt: Sequence[int],
        *,
        room: int,
        continues: bool,
        splits: Splits | None = None,
        blend: tuple[float, ...],
        sampler: Sampler,
        tokenizer: Any,
        sink: Sink,
        cancel: CancelToken,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self.request = request
        self.index = index
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)
        self.blend = blend
        self.sampler = sampler
        self.ends = frozenset(sampler.ends)
        self.pad = self.cells = 0
        self.finish_reason: FinishReason | None = None
        self.text = ""
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self._most = len(prompt) + min(request.max_output_length, room)
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, prompt if continues else ())
        stop = request.stop_sequences
        self._stops = Stops((stop,) if isinstance(stop, str) else stop)
        self._sink = sink
        self._cancel = cancel
        self._ended = ended
        self._backlog: list[TextDelta] = []
        self._splits = splits
        self._shown = 0

    @property
    def length(self) -> int:
        """Tokens of the prompt and of what was said."""
        return len(self.tokens)

    @property
    def most(self) -> int:
        """Tokens that it may come to have."""
        return self._most

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancel.cancelled

    def take(self, token: int, logprob: tuple[float, list[tuple[int, float]]] | None = None) -> None:
        """The next token; `finish_reason` is set if it is the last."""
        self.tokens.append(token)
        self.sampler.said(token)
        piece = ""
        if token in self.ends:
            self.finish_reason = "stop"
        else:
            piece = self._stops.add(self._detokenizer.add(token))
            if self._stops.found:
                self.finish_reason = "stop"
            elif len(self.tokens) >= self._most:
                self.finish_reason = "length"
        if self.finish_reason is not None and not self._stops.found:
            piece += self._stops.add(self._detokenizer.rest())
            piece += "" if self._stops.found else self._stops.rest()
        self._say(piece, None if logprob is None else [self._logprob(token, *logprob)])

    def _say(self, piece: str, logprobs: list[dict[str, Any]] | None) -> None:
        self.text += piece
        self.logprobs += logprobs or ()
        calls: list[dict[str, Any]] = []
        if self._splits is not None:
            piece, calls = self._without_calls(self._splits)
        if self._sink.streaming and (piece or logprobs or calls):
            self._backlog.append(TextDelta(piece, self.index, logprobs=logprobs, tool_calls=calls or None))
            # A reader that is slow must not hold up the others: what it has not taken yet is kept.
            while self._backlog and self._sink.ready:
                self._sink.emit(self._backlog.pop(0))

    def _without_calls(self, splits: Splits) -> tuple[str, list[dict[str, Any]]]:
        """What can be shown now of an answer that may call tools; at its end, the calls."""
        if self.finish_reason is None:
            text = splits.text_before(self.text)
        else:
            text, self.tool_calls = splits.split(self.text)
            if self.tool_calls:
                self.finish_reason, self.text = "tool_calls", text
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece, self.tool_calls

    def _logprob(self, token: int, value: float, rivals: list[tuple[int, float]]) -> dict[str, Any]:
        return {
            **self._named(token, value),
            "top_logprobs": [self._named(other, number) for other, number in rivals],
        }

    def _named(self, token: int, value: float) -> dict[str, Any]:
        text = self._tokenizer.decode([token])
        return {"token": text, "logprob": value, "bytes": list(text.encode())}

    @property
    def behind(self) -> bool:
        """Whether its reader has not taken all of it yet."""
        return bool(self._backlog)

    def hand_over(self) -> None:
        """Pass on what a slow reader has not taken; blocks, so it is not for the thread that computes."""
        for delta in self._backlog:
            if not self._sink.emit(delta):
                return
        self._backlog.clear()

    def end(self, error: BaseException | None = None) -> None:
        """Tell whoever waits for it; once."""
        self._ended(error)

    @property
    def usage(self) -> Usage:
        """What it has cost."""
        return Usage(self.prompt_length, len(self.tokens) - self.prompt_length)

    def completion(self) -> Completion:
        """All of it."""
        reason = self.finish_reason or "stop"
        calls = [{key: call[key] for key in call if key != "index"} for call in self.tool_calls]
        return Completion(
            self.text, reason, self.usage, tool_calls=calls or None, logprobs=self.logprobs or None
        )
