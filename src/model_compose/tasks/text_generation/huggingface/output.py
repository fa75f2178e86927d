"""How does one generated output grow, and where does it go?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from model_compose.drivers.contract import CancelToken, Sink
from model_compose.drivers.huggingface.text import Detokenizer, Stops
from model_compose.tasks.generation import Completion, Generation, TextDelta
from model_compose.tasks.text_generation.answer import Answer, Splits
from model_compose.tasks.text_generation.huggingface.sampling import Sampler
from model_compose.types import Usage


class Output(Answer):
    """One output of a request: a member of the lineup, and the text that came of it so far.

    continues  the output continues the text of the prompt, as that of a decoder does
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
        super().__init__(index, splits)
        self.request = request
        self.tokens = list(prompt)
        self.prompt_length = len(prompt)
        self.blend = blend
        self.sampler = sampler
        self.ends = frozenset(sampler.ends)
        self.pad = self.cells = 0
        self._most = len(prompt) + min(request.max_output_length, room)
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer(tokenizer, prompt if continues else ())
        stop = request.stop_sequences
        self._stops = Stops((stop,) if isinstance(stop, str) else stop)
        self._sink = sink
        self._cancel = cancel
        self._ended = ended
        self._backlog: list[TextDelta] = []

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
        delta = self.grow(piece, [] if logprob is None else [self._logprob(token, *logprob)])
        if delta is not None and self._sink.streaming:
            self._backlog.append(delta)
            # A reader that is slow must not hold up the others: what it has not taken yet is kept.
            while self._backlog and self._sink.ready:
                self._sink.emit(self._backlog.pop(0))

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
        return self.completed(self.usage)
