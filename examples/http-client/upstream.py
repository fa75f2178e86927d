"""A server that says what it is told, word by word, in the manner of OpenAI's API."""

import http.server
import json
import os


class Parrot(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in asked["messages"][-1]["content"].split():
            piece = {"choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")


address = ("127.0.0.1", int(os.environ.get("UPSTREAM_PORT", "8091")))
http.server.ThreadingHTTPServer(address, Parrot).serve_forever()
