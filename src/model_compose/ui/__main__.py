"""Who makes the pages? `python -m model_compose.ui`, a process beside the service.

Its standard input says in a line of JSON what to serve and where; when that closes, the service is gone,
and this ends. It makes no connections but to the service's socket.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, Final

import msgspec

#: Gradio's own cache and uploads lie here, in the folder that the service removes.
_FILES: Final = "files"


class Settings(msgspec.Struct, frozen=True):
    """What the service says.

    folder    where files of pages may lie
    socket    where the pages are served
    gateway   where the service answers
    base      path in front of the API's routes
    path      where the pages are, as browsers see it
    name      of the service
    max_file  most bytes of an uploaded file
    caller    who asked first: as whom the workflows are listed
    """

    folder: str
    socket: str
    gateway: str
    base: str
    path: str
    name: str
    max_file: int
    caller: dict[str, str]


def main() -> None:
    """Serve until the service is gone."""
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    files = Path(settings.folder, _FILES)
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(files),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    sys.addaudithook(stay_here)
    threading.Thread(target=_end_with_the_service, daemon=True).start()
    asyncio.run(_serve(settings, files))


async def _serve(settings: Settings, files: Path) -> None:
    import fastapi
    import gradio as gr
    import uvicorn

    from model_compose.ui import look
    from model_compose.ui.gateway import Gateway
    from model_compose.ui.pages import pages

    gateway = Gateway(settings.gateway, settings.base)
    workflows = await gateway.workflows(settings.caller)
    components = await gateway.components(settings.caller)
    blocks = pages(workflows, components, gateway, name=settings.name, folder=files / "outputs")
    warnings.filterwarnings("ignore", "SSR mode", UserWarning)  # nobody asked for it
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        blocks,
        settings.path,
        footer_links=[],
        run_history=False,
        allowed_paths=[str(files)],
        max_file_size=settings.max_file,
        ssr_mode=False,
        mcp_server=False,
        theme=look.theme(),
        css=look.CSS,
        head=look.SCRIPT,
    )
    config = uvicorn.Config(
        app,
        uds=settings.socket,
        loop="asyncio",  # the others connect without telling those who watch
        http="httptools",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_keep_alive=3600,  # connections are the gateway's to close: see `KEEP_ALIVE_S` of its server
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve()


def stay_here(event: str, details: tuple[Any, ...]) -> None:
    """Refuse to speak with other machines: what libraries would fetch, or a page asks them to fetch."""
    if event in ("socket.connect", "socket.sendto") and not isinstance(details[1], str | bytes):
        raise PermissionError(f"the web UI calls nobody, and would call {details[1]}")
    if event == "socket.getaddrinfo":
        raise PermissionError(f"the web UI calls nobody, and would look for {details[0]}")


def _end_with_the_service() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
