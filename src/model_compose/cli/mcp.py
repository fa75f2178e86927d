"""`mcp`: how does a program that speaks MCP start the workflows as tools of its own?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables, is_verbose
from model_compose.cli.terminal import say

if TYPE_CHECKING:
    from model_compose.config.schema import Project
    from model_compose.config.spec import Catalog


def mcp(
    context: typer.Context,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Offer the workflows as MCP tools on stdin and stdout.

    For programs that start their tools themselves. A running service has them at /mcp.
    """
    import asyncio

    from model_compose.api.mcp import require_mcp
    from model_compose.cli.once import set_up_log

    require_mcp()
    set_up_log(verbose=is_verbose(context))
    selection = Selection.of(context, files, env_files, variables)
    catalog = selection.looking()
    asyncio.run(_serve(selection.project(catalog), catalog))


async def _serve(project: Project, catalog: Catalog) -> None:
    """Answer until whoever started us closes stdin."""
    from mcp.server.stdio import stdio_server

    from model_compose.api.mcp import Tools
    from model_compose.cli.downloads import shown_on
    from model_compose.compose.app import App

    downloads = shown_on(sys.stderr, lambda component, text: say(f"{component}: {text}", sys.stderr))
    async with App(project, catalog, progress=downloads) as app:
        server = Tools(app).server()
        async with stdio_server() as (reader, writer):
            await server.run(reader, writer, server.create_initialization_options())
