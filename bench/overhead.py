"""What does the service add to a call?

A driver that answers at once, called over HTTP through gateway, workflow and worker process, against
a FastAPI route that decodes and encodes the same JSON with msgspec and does nothing else; and 10,000
server-sent events against a bare Starlette stream.
"""

from __future__ import annotations

import json
import statistics
import time

import psutil

from bench.client import Connection, hammer
from bench.processes import answers, cpu_seconds, free_port, program, service
from bench.stats import Report

PAIRS = 15
SECONDS = 1.0
CHUNKS = 10_000

ECHO = """
controller: {port: {port}}
component: {id: echo, type: model, task: text-generation, driver: echo, batch_size: 64}
"""

REFERENCE = """
import sys
import msgspec, uvicorn
from fastapi import FastAPI, Request, Response
from starlette.responses import StreamingResponse

class Run(msgspec.Struct):
    workflow_id: str | None = None
    input: object = None

decoder = msgspec.json.Decoder(Run)
app = FastAPI()

@app.get("/readyz")
async def ready():
    return {}

@app.post("/run")
async def run(request: Request):
    asked = decoder.decode(await request.body())
    answer = {"task_id": "01K", "workflow_id": "w", "status": "completed", "output": asked.input}
    return Response(msgspec.json.encode(answer), media_type="application/json")

async def pieces():
    for i in range(int(sys.argv[2])):
        yield f"data: {i} \\n\\n".encode()

@app.post("/stream")
async def stream(request: Request):
    return StreamingResponse(pieces(), media_type="text/event-stream")

uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""


async def main(report: Report) -> None:
    report.title("What the service adds to a call")
    port = free_port()
    with program("-c", REFERENCE, str(port), str(CHUNKS)) as reference:
        await answers(f"http://127.0.0.1:{port}/readyz")
        async with service(ECHO) as (ours, gateway):
            await _calls(report, ours, gateway, port, psutil.Process(reference.pid))
            await _stream(report, ours, port)


async def _calls(
    report: Report, ours: int, gateway: psutil.Process, theirs: int, reference: psutil.Process
) -> None:
    body = {"input": "hello"}
    url = "/api/workflows/runs"
    await hammer(ours, url, body, 8, 1)
    await hammer(theirs, "/run", body, 8, 1)
    p50: tuple[list[float], list[float]] = ([], [])
    rate: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for _ in range(PAIRS):
        for i, (port, path, process) in enumerate(((ours, url, gateway), (theirs, "/run", reference))):
            alone = await hammer(port, path, body, 1, SECONDS)
            p50[i].append(statistics.median(alone) * 1e6)
            before = cpu_seconds(process)
            together = await hammer(port, path, body, 32, SECONDS)
            cpu[i].append((cpu_seconds(process) - before) / len(together) * 1e3)
            rate[i].append(len(together) / SECONDS)
    report.compare("p50 of one caller ÷ FastAPI", *p50, "µs", at_most=3)
    report.compare("requests/s of 32 callers ÷ FastAPI", *rate, "/s", at_least=0.25)
    report.single("gateway CPU of a request, 32 callers", cpu[0], "ms", at_most=0.4)
    report.single("(FastAPI's, for comparison)", cpu[1], "ms")


async def _stream(report: Report, ours: int, theirs: int) -> None:
    body = json.dumps({"input": f"chunks:{CHUNKS}"}).encode()
    rates: tuple[list[float], list[float]] = ([], [])
    for pair in range(PAIRS + 1):
        for i, (port, path) in enumerate(((ours, "/api/workflows/runs"), (theirs, "/stream"))):
            connection = Connection(port)
            await connection.open()
            began = time.perf_counter()
            events, _ = await connection.events(path, body)
            if pair:
                rates[i].append(CHUNKS / (time.perf_counter() - began))
            connection.close()
            if len(events) < CHUNKS:
                raise RuntimeError(f"{len(events)} events of {CHUNKS}")
    report.compare("10,000 events, events/s ÷ bare Starlette", *rates, "/s", at_least=0.5)
