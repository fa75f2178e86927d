"""What does a stream cost that comes from another server and goes on as ours?

10,000 events of a chat completion from a local server, through a component `http-client` whose output is
the text of each, against a bare relay: httpx2 in, Starlette out, nothing looked at. Both relays read
from the same server, and the same client reads both.
"""

from __future__ import annotations

import json
import time

from bench.client import Connection
from bench.processes import answers, free_port, program, service
from bench.stats import Report

PAIRS = 15
CHUNKS = 10_000

#: The server of models; it sends as fast as it can, several events in a packet, as a socket does.
UPSTREAM = """
import asyncio, sys
import uvloop

EVENT = (
    b'data: {"id":"x","object":"chat.completion.chunk",'
    b'"choices":[{"index":0,"delta":{"content":"%d "}}]}\\n\\n'
)
EVENTS = [EVENT % i for i in range(int(sys.argv[2]))] + [b"data: [DONE]\\n\\n"]
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"

async def serve(reader, writer):
    while head := await reader.readuntil(b"\\r\\n\\r\\n"):
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split()[0]))
        writer.write(HEAD)
        for event in EVENTS:
            writer.write(b"%x\\r\\n%b\\r\\n" % (len(event), event))
            await writer.drain()
        writer.write(b"0\\r\\n\\r\\n")

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

uvloop.run(main())
"""

#: What one writes who only wants the bytes to go on.
RELAY = """
import sys
import httpx2, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

client = httpx2.AsyncClient(trust_env=False)

async def ready(request):
    return JSONResponse({})

async def relay(request):
    await request.body()
    asked = client.build_request("POST", sys.argv[2], json={"stream": True})
    response = await client.send(asked, stream=True)
    return StreamingResponse(response.aiter_bytes(), media_type="text/event-stream")

app = Starlette(routes=[Route("/readyz", ready), Route("/stream", relay, methods=["POST"])])
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""

OURS = """
controller: {port: {port}}
component:
  type: http-client
  endpoint: UPSTREAM
  body: {stream: true, prompt: "${input.prompt}"}
  output: ${response[].choices[0].delta.content}
"""


async def main(report: Report) -> None:
    report.title("What a stream from another server costs")
    upstream, relay = free_port(), free_port()
    url = f"http://127.0.0.1:{upstream}/v1/chat/completions"
    with (
        program("-c", UPSTREAM, str(upstream), str(CHUNKS)),
        program("-c", RELAY, str(relay), url),
    ):
        await answers(f"http://127.0.0.1:{relay}/readyz")
        async with service(OURS.replace("UPSTREAM", url)) as (ours, _):
            await _streams(report, ours, relay)


async def _streams(report: Report, ours: int, relay: int) -> None:
    body = json.dumps({"input": {"prompt": "x"}}).encode()
    rates: tuple[list[float], list[float]] = ([], [])
    first: tuple[list[float], list[float]] = ([], [])
    for pair in range(PAIRS + 1):
        for i, (port, path) in enumerate(((ours, "/api/workflows/runs"), (relay, "/stream"))):
            connection = Connection(port)
            await connection.open()
            began = time.perf_counter()
            events, times = await connection.events(path, body)
            if pair:
                rates[i].append(CHUNKS / (time.perf_counter() - began))
                first[i].append((times[0] - began) * 1e3)
            connection.close()
            if len(events) < CHUNKS:
                raise RuntimeError(f"{len(events)} events of {CHUNKS}")
    report.compare("10,000 events, events/s ÷ bare relay", *rates, "/s", at_least=0.5)
    report.compare("first event ÷ bare relay", *first, "ms")
