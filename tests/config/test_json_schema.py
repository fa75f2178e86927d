from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from tests.docs.checking import said_of, texts_of
from tests.docs.pages import ROOT, Block, blocks, pages
from tests.docs.running import packages

from model_compose.components.model.spec import ModelConfig, PeftAdapter
from model_compose.compose.catalog import BuiltIn, Installed
from model_compose.config.job_keys import ComponentJobKeys, DelayKeys, DoKeys, FilterKeys, ForEachKeys
from model_compose.config.json_schema import document
from model_compose.config.load import parse
from model_compose.config.schema import (
    ActionKeys,
    ComponentKeys,
    Controller,
    JobKeys,
    OnErrorKeys,
    Retry,
    Settings,
    WorkflowKeys,
)
from model_compose.config.spec import fields_of
from model_compose.config.tree import merge, to_data
from model_compose.drivers.llamacpp.spec import LlamaCppOptions
from model_compose.sources.spec import HubSource

CATALOG = BuiltIn()

#: Values of every kind; most of them are wrong for most keys.
VALUES = (
    *("3", "-1", "0", "0.5", "1e9", "true", "null", "text", "''", "yes", "5m", "4GiB", "80%", "user", "auto"),
    *("[]", "[text]", "[3]", "{}", "{a: 1}", "[{role: user, content: text}]"),
    *("${env.X | 5}", "${env.X | text}", "${input.x}", "a ${input.x}", "$${input.x}", "{type: json_object}"),
    *("{'*': '${input.x}', role: user}", "{'+': [a]}", "{'?': {input: 1, value: 1, if_true: 2}}"),
)

#: For a key that another task has too, with the same meaning: its schema is there, and no other.
FEW = ("3", "text", "[text]", "${env.X | 5}", "${input.x}")

#: A file for every place where keys can stand.
PLACES: dict[type[msgspec.Struct], str] = {
    Settings: "{HERE, component: {MODEL}}",
    Controller: "{controller: {HERE}, component: {MODEL}}",
    ComponentKeys: "component: {MODEL, HERE}",
    ModelConfig: "component: {MODEL, HERE}",
    LlamaCppOptions: "component: {MODEL, options: {HERE}}",
    ActionKeys: "component: {MODEL, actions: [{HERE}]}",
    JobKeys: "{component: {MODEL}, workflow: {job: {HERE}}}",
    ComponentJobKeys: "{component: {MODEL}, workflow: {job: {HERE}}}",
    DelayKeys: "{component: {MODEL}, workflow: {job: {type: delay, HERE}}}",
    FilterKeys: "{component: {MODEL}, workflow: {job: {type: filter, HERE}}}",
    ForEachKeys: "{component: {MODEL}, workflow: {job: {type: for-each, input: [a], do: {}, HERE}}}",
    DoKeys: "{component: {MODEL}, workflow: {job: {type: for-each, input: [a], do: {HERE}}}}",
    Retry: "{component: {MODEL}, workflow: {job: {retry: {HERE}}}}",
    OnErrorKeys: "{component: {MODEL}, workflow: {job: {on_error: {HERE}}}}",
    WorkflowKeys: "{component: {MODEL}, workflow: {HERE}}",
    PeftAdapter: "component: {MODEL, peft_adapters: [{model: ./lora.gguf, HERE}]}",
    HubSource: "component: {MODEL, peft_adapters: [{model: {repository: a/b, filename: c.gguf, HERE}}]}",
    **{
        task.request: f"component: {{type: model, task: {task.name}, model: ./model{ending}, HERE}}"
        for name in CATALOG.tasks()
        if (task := CATALOG.task(name))
        for ending in (".gguf" if "llamacpp" in task.drivers else ".safetensors",)
    },
}
MODEL = "type: model, task: text-embedding, model: ./model.gguf"

MISTAKES = {
    "an unknown section": "webui: {}",
    "an unknown key of a component": "component: {type: model, task: chat-completion, temperatur: 1}",
    "an unknown type": "component: {type: modell}",
    "no type": "component: {task: chat-completion}",
    "an unknown task": "component: {type: model, task: chat}",
    "a driver that is not there": "component: {type: model, task: text-embedding, driver: unslothh}",
    "text for a number": "component: {type: model, task: chat-completion, temperature: hot}",
    "a number out of range": "component: {type: model, task: chat-completion, top_p: 2}",
    "a parameter of another task": "component: {type: model, task: text-embedding, temperature: 1}",
    "an unknown key in params": "component: {type: model, task: chat-completion, params: {top: 1}}",
    "an unknown option": "component: {type: model, task: chat-completion, options: {n_ctx: 1}}",
    "an unknown option of a driver that is named": (
        "component: {type: model, task: chat-completion, driver: llamacpp, options: {n_ctx: 1}}"
    ),
    "a role that nobody has": (
        "component: {type: model, task: chat-completion, messages: [{role: me, content: x}]}"
    ),
    "a source without its keys": "component: {type: model, task: chat-completion, model: {provider: pypi}}",
    "keys of several sources": (
        "component: {type: model, task: text-embedding, model: {path: ./x, revision: y}}"
    ),
    "what is not known yet": 'component: {type: model, task: text-embedding, model: "${input.model}"}',
    "a boolean of YAML 1.1": "component: {type: model, task: text-embedding, preload: yes}",
    "a port out of range": "controller: {port: 80000}",
    "one and several": "{component: {type: model, task: text-embedding}, components: []}",
    "two names of one key": "component: {type: model, task: text-embedding, family: a, architecture: b}",
    "a list for one": "component: [{type: model, task: text-embedding}]",
    "one for a list": "components: {type: model, task: text-embedding}",
    "an unknown key of a job": "workflow: {jobs: [{id: a, componet: b}]}",
    "an unknown key of a component in a job": (
        "workflow: {job: {component: {type: model, task: text-embedding, modle: x}}}"
    ),
    "a key of a job beside jobs": "workflow: {component: a, jobs: [{id: a}]}",
    "an id of a lifted job": "workflow: {id: [a]}",
    "a key of another type of job": "workflow: {jobs: [{id: a, cases: []}]}",
    "a type of job that nobody knows": "workflow: {jobs: [{id: a, type: jump}]}",
    "a job without what it needs": "workflow: {jobs: [{id: a, type: switch, cases: [{value: 1, then: b}]}]}",
    "no duration": "workflow: {jobs: [{id: a, type: delay, duration: []}]}",
    "an operator that nobody knows": (
        "workflow: {jobs: [{id: a, type: if, input: 1, operator: like, value: 1, if_true: a}]}"
    ),
}


@functools.cache
def _validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(document(Installed()))


def _accepts(*texts: str, validator: jsonschema.Draft202012Validator | None = None) -> bool:
    root = functools.reduce(merge, (parse(text, "model-compose.yml").root for text in texts))
    return bool((validator or _validator()).is_valid(to_data(root)))


def _examples() -> list[Path]:
    return sorted((ROOT / "examples").glob("*/*.yml"))


def _blocks() -> list[Block]:
    every = [block for page in pages() for block in blocks(page)]
    return [block for block in every if block.language == "yaml" and "mistake" not in block.marks]


@pytest.mark.parametrize("example", _examples(), ids=lambda path: path.parent.name)
def test_every_example_is_right(example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added = packages(example.parent, tmp_path)
    for path in added:
        monkeypatch.syspath_prepend(path)
    validator = jsonschema.Draft202012Validator(document(Installed())) if added else _validator()
    assert _accepts(example.read_text(), validator=validator)


@pytest.mark.parametrize("block", _blocks(), ids=lambda block: block.place)
def test_every_block_of_our_pages_is_right(block: Block) -> None:
    assert _accepts(*texts_of(block.text, block.marks.get("part")))


@pytest.mark.parametrize("text", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_seen(text: str, tmp_path: Path) -> None:
    assert not _accepts(text)
    assert said_of(text, tmp_path)


def _tried(struct: type[msgspec.Struct]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The keys of a place, and the values for each."""
    tasks = [request for request in PLACES if "HERE" in PLACES[request] and "task:" in PLACES[request]]
    before = tasks[: tasks.index(struct)] if struct in tasks else []
    known = [(field.name, field.type) for other in before for field in fields_of(other)]
    for field in fields_of(struct):
        values = FEW if (field.name, field.type) in known else VALUES
        yield from ((name, values) for name in field.names)


@pytest.mark.parametrize("struct", PLACES, ids=lambda struct: struct.__name__)
def test_what_check_takes_is_right(struct: type[msgspec.Struct], tmp_path: Path) -> None:
    taken = 0
    for key, values in _tried(struct):
        for value in values:
            entry = f'{key}: "{value}"' if "$" in value and value[0] != "{" else f"{key}: {value}"
            text = PLACES[struct].replace("MODEL", MODEL).replace("HERE", entry)
            if not said_of(text, tmp_path):
                taken += 1
                assert _accepts(text), text
    assert taken > len(fields_of(struct))


@pytest.mark.parametrize("where", ["HERE", "action: {HERE}", "actions: [{HERE}]"])
@pytest.mark.parametrize(
    "keys", ["params: {any: 1}", "params: '${input.params}'", "params: {any: '${input.x}'}"]
)
def test_a_class_of_ones_own_has_parameters_and_options_of_its_own(
    where: str, keys: str, tmp_path: Path
) -> None:
    begun = "component: {type: model, task: chat-completion, implementation: ./a.py:A, options: {any: 1}, "
    text = begun + where.replace("HERE", keys) + "}"
    assert _accepts(text)
    assert not said_of(text, tmp_path)


@pytest.mark.parametrize("key", ["architecture", "family"])
def test_a_family_of_another_package_has_options_of_its_own(key: str, tmp_path: Path) -> None:
    keys = f"model: ./m.pth, {key}: mirror, options: {{width: 7}}"
    text = f"component: {{type: model, task: image-upscale, {keys}}}"
    assert _accepts(text)
    assert not said_of(text, tmp_path)


def test_every_key_says_what_it_is() -> None:
    def silent(schema: Any, path: str) -> Iterator[str]:
        if isinstance(schema, dict):
            for name, value in schema.get("properties", {}).items():
                if isinstance(value, dict) and value and not {"description", "$ref", "const"} & value.keys():
                    yield f"{path}/{name}"
            for name, value in schema.items():
                yield from silent(value, f"{path}/{name}")
        elif isinstance(schema, list):
            for value in schema:
                yield from silent(value, path)

    # What tells alternatives apart is no key of its own.
    assert [
        path for path in silent(document(CATALOG), "") if "/if/" not in path and "/then/" not in path
    ] == []


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(document(Installed()))


def test_it_is_json_and_always_the_same() -> None:
    program = (
        "import json; from model_compose.compose.catalog import BuiltIn;"
        "from model_compose.config.json_schema import document;"
        "print(json.dumps(document(BuiltIn()), allow_nan=False))"
    )
    printed = {
        subprocess.check_output(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}, text=True
        )
        for seed in ("1", "2")
    }
    assert len(printed) == 1
    definitions = list(json.loads(printed.pop())["$defs"])
    assert definitions == sorted(definitions)
