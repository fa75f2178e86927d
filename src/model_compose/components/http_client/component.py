"""How is a server called that runs already?"""

from __future__ import annotations

from typing import Any

from model_compose.components.contract import CallContext, Setting, Stateless
from model_compose.components.http_client.exchange import Exchange
from model_compose.components.http_client.spec import HttpClientConfig
from model_compose.config.expression import Scope
from model_compose.config.schema import Action


class HttpClient(Stateless):
    """Calls an HTTP server."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        config: HttpClientConfig = setting.declared.config
        self._exchange = Exchange(
            self.name,
            config,
            base_url=config.base_url,
            media=setting.media,
            callbacks=setting.callbacks,
            proxy=config.proxy,
            most=setting.declared.max_concurrent_count,
        )

    async def start(self) -> None:
        """Make a pool of connections, in the background."""
        self._exchange.start()

    async def close(self) -> None:
        """Close every connection."""
        await self._exchange.aclose()

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        return await self._exchange.call(action, scope, context, streaming=streaming)
