"""The main job, for somebody who has just cloned this: a real model answers over HTTP.

`make demo` runs it. It pulls the quickstart's model, starts its service, asks a question, prints the
answer as it comes, and stops the service again.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "quickstart"
COMMAND = Path(sys.executable).parent / "model-compose"
QUESTION = "What is photosynthesis?"

NEXT = f"""
What to try next
  source .venv/bin/activate
  cd {FOLDER.relative_to(ROOT)}
  model-compose up                          # the service, in the foreground; its API page is at /docs
  model-compose run -i "Tell me a story."   # once, without a service
  model-compose --help
"""


def main() -> int:
    """Pull, start, ask, stop; -> the exit code."""
    say(f"model-compose pull     (in {FOLDER.name})")
    if compose("pull"):
        return 1
    say("model-compose up -d")
    if compose("up", "--detach"):
        return 1
    try:
        say(f"POST /api/workflows/runs   {QUESTION!r}")
        ask(service(), QUESTION)
    finally:
        say("model-compose down")
        compose("down")
    print(NEXT)
    return 0


def say(text: str) -> None:
    """Show what is done next, as a command."""
    print(f"\n$ {text}", flush=True)


def compose(*arguments: str) -> int:
    """Run a command of ours in the quickstart's folder."""
    return subprocess.run([COMMAND, *arguments], cwd=FOLDER, check=False).returncode


def service() -> str:
    """Where the service listens."""
    return str(json.loads((FOLDER / ".model-compose" / "service.json").read_text())["url"])


def ask(url: str, question: str) -> None:
    """Ask, and print each piece of the answer as it arrives."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=120)
    body = {"input": {"prompt": question, "temperature": 0, "max_output_length": 120}}
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    connection.request("POST", "/api/workflows/runs", json.dumps(body), headers)
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise SystemExit(f"{response.status}: {response.read().decode()}")
    event, lines = "message", list[str]()
    for raw in response:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            event = line.removeprefix("event: ")
        elif line.startswith("data: "):
            lines.append(line.removeprefix("data: "))
        elif not line and lines:
            show(event, "\n".join(lines))
            event, lines = "message", []
    connection.close()


def show(event: str, data: str) -> None:
    """Print one event of the answer."""
    if event == "message":
        print(data, end="", flush=True)
    elif event == "end":
        usage = json.loads(data)["usage"]
        print(f"\n\n({usage['prompt_tokens']} prompt tokens, {usage['completion_tokens']} generated)")
    else:
        raise SystemExit(f"\n{data}")


if __name__ == "__main__":
    sys.exit(main())
