"""Do the clients that people have work with a real service, as they come?

Each runs in a process of its own, as its users run it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests import models
from tests.api.openai.clients import NODE_CLIENTS
from tests.api.serving import serving

pytestmark = [pytest.mark.model, pytest.mark.process, pytest.mark.timeout(400)]

QUESTION = "What is photosynthesis?"

PYTHON = """
import sys
from openai import NotFoundError, OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="none")
given = {"model": "chat", "messages": [{"role": "user", "content": sys.argv[2]}], "max_tokens": 24}
answer = client.chat.completions.create(**given)
print(answer.choices[0].message.content)
stream = client.chat.completions.create(**given, stream=True)
print("".join(chunk.choices[0].delta.content or "" for chunk in stream))
print(client.responses.create(model="chat", input=sys.argv[2], max_output_tokens=24).output_text)
vectors = client.embeddings.create(model="vectors", input=["a cat", "a kitten", "the stock market"]).data
print([len(vector.embedding) for vector in vectors])
try:
    client.models.retrieve("nothing")
except NotFoundError as error:
    print(error.code)
"""

NODE_COMMAND = str(Path(sys.executable).with_name("node"))

NODE = """
import OpenAI from "openai";

const [url, question] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey: "none" });
const given = { model: "chat", messages: [{ role: "user", content: question }], max_tokens: 24 };
const answer = await client.chat.completions.create(given);
console.log(answer.choices[0].message.content);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...given, stream: true }))
  streamed += chunk.choices[0]?.delta?.content ?? "";
console.log(streamed);
const response = await client.responses.create({ model: "chat", input: question, max_output_tokens: 24 });
console.log(response.output_text);
const input = ["a cat", "a kitten", "the stock market"];
const vectors = (await client.embeddings.create({ model: "vectors", input })).data;
console.log(JSON.stringify(vectors.map((vector) => vector.embedding.length)));
try {
  await client.models.retrieve("nothing");
} catch (error) {
  console.log(error.code);
}
"""

LANGCHAIN = """
import json, sys
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

class Person(BaseModel):
    name: str
    age: int

given = {"base_url": sys.argv[1], "api_key": "none"}
chat = ChatOpenAI(**given, model="chat", temperature=0, max_tokens=24)
print(chat.invoke(sys.argv[2]).content)
print("".join(chunk.content for chunk in chat.stream(sys.argv[2])))
longer = ChatOpenAI(**given, model="chat", temperature=0, max_tokens=60)
print(longer.with_structured_output(Person).invoke("Ada is 36 years old.").name)
embeddings = OpenAIEmbeddings(**given, model="vectors", check_embedding_ctx_length=False)
print(json.dumps([len(vector) for vector in embeddings.embed_documents(["a cat", "a kitten"])]))
"""


@contextlib.asynccontextmanager
async def url(folder: Path) -> AsyncIterator[str]:
    """A service with real models."""
    text = f"""
controller: {{port: 0}}
components:
  - {{id: chat, type: model, task: chat-completion, model: {models.smollm2()}, temperature: 0}}
  - {{id: vectors, type: model, task: text-embedding, model: {models.minilm_gguf()}}}
"""
    async with serving(text, folder) as service:
        yield f"{service.url}/v1"


async def printed(*command: str | Path, cwd: Path, **environment: str) -> list[str]:
    """What a program prints, line by line; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**os.environ, "LANGSMITH_TRACING": "false", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().splitlines()


async def test_openais_client_for_python(tmp_path: Path) -> None:
    async with url(tmp_path) as base:
        *answers, vectors, missing = await printed(sys.executable, "-c", PYTHON, base, QUESTION, cwd=tmp_path)
    assert answers == [answers[0]] * 3
    assert answers[0].startswith("Photosynthesis is")
    assert json.loads(vectors) == [384] * 3
    assert missing == "model_not_found"


async def test_openais_client_for_node(tmp_path: Path) -> None:
    program = tmp_path / "client.mjs"
    program.write_text(NODE)
    (tmp_path / "node_modules").symlink_to(NODE_CLIENTS / "node_modules")
    async with url(tmp_path) as base:
        *answers, vectors, missing = await printed(NODE_COMMAND, program, base, QUESTION, cwd=tmp_path)
    assert answers == [answers[0]] * 3
    assert answers[0].startswith("Photosynthesis is")
    assert json.loads(vectors) == [384] * 3
    assert missing == "model_not_found"


async def test_langchain(tmp_path: Path) -> None:
    async with url(tmp_path) as base:
        whole, streamed, name, vectors = await printed(
            sys.executable, "-c", LANGCHAIN, base, QUESTION, cwd=tmp_path
        )
    assert whole == streamed
    assert whole.startswith("Photosynthesis is")
    assert "Ada" in name
    assert json.loads(vectors) == [384] * 2


async def test_the_llm_command(tmp_path: Path) -> None:
    home = tmp_path / "llm"
    home.mkdir()
    llm = [str(Path(sys.executable).with_name("llm")), "-m", "ours", "-o", "max_tokens", "24"]
    async with url(tmp_path) as base:
        (home / "extra-openai-models.yaml").write_text(
            f"- {{model_id: ours, model_name: chat, api_base: '{base}'}}\n"
        )
        streamed = await printed(*llm, QUESTION, cwd=tmp_path, LLM_USER_PATH=str(home))
        whole = await printed(*llm, "--no-stream", QUESTION, cwd=tmp_path, LLM_USER_PATH=str(home))
        followed = await printed(*llm, "-c", "And why?", cwd=tmp_path, LLM_USER_PATH=str(home))
    assert streamed == whole
    assert streamed[0].startswith("Photosynthesis is")
    assert followed[0]
