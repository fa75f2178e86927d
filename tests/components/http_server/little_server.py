"""A server for tests: `python little_server.py PORT [how]...`

    /health      503 for the first `sick=N` questions, then 200
    /asked       how often it was asked for its health
    /pid         the process id of the server, and that of its child
    /env         the variable TOLD
    /echo        what it gets, when the file `wait=PATH` is there
    /die         nothing: it ends with exit code 3, having said "the end is near"
    /pieces      lines of JSON, one after the other, until nobody reads

`silent`: it never listens. `stubborn`: it ignores SIGTERM. `parent`: it has a child in its group.
`flood=N`: it prints N lines first. `mortal=PATH`: if that file is there, it ends before it listens.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PORT = int(sys.argv[1])
HOW = dict(word.partition("=")[::2] for word in sys.argv[2:])
CHILD = subprocess.Popen(["sleep", "1000"]).pid if "parent" in HOW else None
asked = 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Little(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        global asked
        if self.path == "/health":
            asked += 1
            self._answer({}, 503 if asked <= int(HOW.get("sick", 0)) else 200)
        else:
            self.do_POST()

    def do_POST(self) -> None:
        given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/asked":
            self._answer({"asked": asked})
        elif self.path == "/pid":
            self._answer({"pid": os.getpid(), "child": CHILD})
        elif self.path == "/env":
            self._answer({"told": os.environ.get("TOLD"), "folder": str(Path.cwd())})
        elif self.path == "/echo":
            while "wait" in HOW and not Path(HOW["wait"]).exists():
                time.sleep(0.005)
            self._answer(json.loads(given))
        elif self.path == "/die":
            say("the end is near")
            os._exit(3)
        elif self.path == "/pieces":
            self._pieces()

    def _answer(self, value: object, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pieces(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for number in range(1_000_000):
                self.wfile.write(json.dumps({"response": f"{number} "}).encode() + b"\n")
        except OSError:
            say("nobody reads any more")

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    if "stubborn" in HOW:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "mortal" in HOW and Path(HOW["mortal"]).exists():
        say("I was never well")
        os._exit(4)
    for number in range(int(HOW.get("flood", 0))):
        sys.stdout.write(f"line {number}\n")
    sys.stdout.flush()
    say(f"TOLD is {os.environ.get('TOLD')}, TOKEN is {os.environ.get('MY_TOKEN')}")
    if "silent" in HOW:
        threading.Event().wait()
    ThreadingHTTPServer(("127.0.0.1", PORT), Little).serve_forever()


if __name__ == "__main__":
    main()
