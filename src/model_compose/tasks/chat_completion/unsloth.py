"""How does Unsloth answer in a conversation? As transformers does: see `text_generation/unsloth.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_compose.drivers.unsloth.library import Unsloth
from model_compose.tasks.text_generation.unsloth import Generator

if TYPE_CHECKING:
    from model_compose.tasks.chat_completion.huggingface import Chat as Serving


class Chat(Generator):
    """An `EngineModel` for chat-completion."""

    def _made(self) -> Serving:
        from model_compose.tasks.chat_completion.huggingface import Chat as Serving

        return Serving(Unsloth())
