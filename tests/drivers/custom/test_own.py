from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import serving
from tests.compose.apps import app_of, project_of, start
from tests.tasks.batches import outcomes, started

from model_compose.api.schemas import input_schema
from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.own import OwnModel
from model_compose.drivers.params import with_params
from model_compose.errors import ConfigErrors, EngineError, InvalidInput, ModelLoadError
from model_compose.tasks.text_classification.spec import TextClassification

#: Counts letters, and says whether there are many; as much of a class as there can be.
WHOLE = """
import msgspec
from model_compose.drivers.contract import Item
from model_compose.errors import InvalidInput
import neighbour

class Counter:
    class Options(msgspec.Struct):
        many: int = 5
        names: tuple[str, ...] = ("few", "many")

    def load(self, options):
        self.own = options.options
        self.threads = options.threads

    def prepare(self, request):
        if request.text == "refuse":
            raise InvalidInput("`text`: not this one", field="text")
        return Item(len(request.text), None, neighbour.letters(request.text))

    def forward(self, batch, step):
        if "boom" in batch:
            raise ZeroDivisionError("no")
        return [(len(letters), len(batch)) for letters in batch]

    def finish(self, request, raw):
        count, rows = raw
        many = int(count >= self.own.many)
        return {"label": self.own.names[many], "score": float(rows), "label_id": many}

    def metrics(self):
        return {"own": 1.0}

class Plain:
    def __call__(self, request):
        if request.text == "fail":
            raise ValueError("not in the mood")
        return {"label": request.text, "score": 1.0, "label_id": 0}

class Batch:
    def forward(self, batch):
        return [{"label": each.text, "score": 1.0, "label_id": 0} for each in batch]

class Louder:
    class Params(msgspec.Struct):
        gain: float = 1.0
        mark: str = ""
        tag: str = msgspec.field(default_factory=iter("abcdefgh").__next__)

    def prepare(self, request):
        return request.params.gain, request.params.tag

    def forward(self, batch):
        return [(gain, tag, len(batch)) for gain, tag in batch]

    def finish(self, request, raw):
        gain, tag, rows = raw
        label = request.text + request.params.mark + (":" + tag) * (tag == request.params.tag)
        return {"label": label, "score": gain, "label_id": rows}

class Strict:
    class Params(msgspec.Struct):
        gain: float

    def __call__(self, request):
        return {"label": request.text, "score": request.params.gain, "label_id": 0}

class Loose:
    class Params:
        gain = 1.0

    def __call__(self, request):
        return None

class Short:
    def forward(self, batch):
        return []

class Nothing:
    pass
"""

NEIGHBOUR = """
def letters(text):
    return "".join(filter(str.isalpha, text))
"""

FILE = """
component:
  id: own
  type: model
  task: text-classification
  implementation: ./own.py:{name}
  runtime: {runtime}
  {more}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(WHOLE)
    (tmp_path / "neighbour.py").write_text(
        "def letters(text):\n    return ''.join(filter(str.isalpha, text))\n"
    )
    return tmp_path


def options(folder: Path, name: str, **more: Any) -> LoadOptions:
    return LoadOptions(
        task="text-classification",
        source=None,
        threads=1,
        scratch=str(folder),
        implementation=f"{folder / 'own.py'}:{name}",
        **more,
    )


def asked(text: str, **params: Any) -> Any:
    return with_params(TextClassification)(text=text, params=params)


def own(folder: Path, name: str, **more: Any) -> Any:
    return started(OwnModel(), options(folder, name, **more))


def test_a_class_with_everything(folder: Path) -> None:
    model = own(folder, "Counter", options={"many": 3})
    found = outcomes(model, [asked("a, b"), asked("a, b, c")])
    assert [outcome.result for outcome in found] == [
        {"label": "few", "score": 2.0, "label_id": 0},
        {"label": "many", "score": 2.0, "label_id": 1},
    ]
    assert model.metrics() == {"own": 1.0}


@pytest.mark.parametrize("name", ["Plain", "Batch"])
def test_a_class_with_one_method(folder: Path, name: str) -> None:
    (outcome,) = outcomes(own(folder, name), [asked("x")])
    assert outcome.result == {"label": "x", "score": 1.0, "label_id": 0}


def test_one_that_computes_rows_one_by_one_fails_for_one_of_them(folder: Path) -> None:
    model = own(folder, "Plain")
    items = [model.prepare(asked(text))[0] for text in ("a", "fail", "b")]
    a, failed, b = model.forward(items, None)
    assert (a["label"], b["label"]) == ("a", "b")
    assert isinstance(failed, ValueError)


def test_a_row_for_each_row(folder: Path) -> None:
    with pytest.raises(EngineError, match="`forward` gave 0 rows for 1"):
        outcomes(own(folder, "Short"), [asked("x")])


def test_batch_size_is_the_most_rows(folder: Path) -> None:
    assert own(folder, "Batch", batch_size=7).budget()[0] == 7


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Nothing", {}, "has neither `forward` nor `__call__`"),
        ("Missing", {}, "has no class `Missing`"),
        ("Plain", {"many": 1}, "takes no `options`"),
        ("Counter", {"meny": 1}, "`options` has no `meny`"),
        ("Loose", {}, "`Params` of .* is no `msgspec.Struct`"),
        ("Counter", {"many": "x"}, r"`options`: Expected `int`, got `str` - at `\$.many`"),
    ],
)
def test_what_cannot_be_loaded(folder: Path, name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        own(folder, name, options=given)


def test_a_file_that_is_not_there_or_does_not_run(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_module")
    for name, message in (
        ("none.py:A", "there is no file"),
        ("broken.py:A", "no_such_module"),
        ("", "no class"),
    ):
        with pytest.raises(ModelLoadError, match=message):
            OwnModel().load(
                LoadOptions(task="x", source=None, threads=1, scratch="", implementation=str(folder / name)),
                lambda *_: None,
            )


def test_requests_of_one_batch_have_each_their_own_params(folder: Path) -> None:
    requests = [asked("x", gain=2), asked("y", mark="!"), asked("z", gain=None)]
    found = [outcome.result for outcome in outcomes(own(folder, "Louder"), requests)]
    assert [each["score"] for each in found] == [2.0, 1.0, 1.0]
    assert [each["label"] for each in found] == ["x:a", "y!:b", "z:c"]
    assert [each["label_id"] for each in found] == [3, 3, 3]


@pytest.mark.parametrize(
    ("name", "params", "field", "message", "hint"),
    [
        (
            "Louder", {"gian": 1}, "params.gian", "there is no parameter `params.gian`",
            "did you mean `gain`? valid: `gain`, `mark`, `tag`",
        ),
        ("Louder", {"gain": "x"}, "params.gain", "`params.gain`: expected a number, got text", None),
        ("Strict", {}, "params.gain", "`params.gain` is missing", None),
        (
            "Louder", {"truncate": False}, "params.truncate", "there is no parameter `params.truncate`",
            "`truncate` is a parameter of the task: it stands beside `params`",
        ),
        (
            "Counter", {"gain": 1}, "params.gain", "there is no parameter `params.gain`",
            "the class has no `Params`, so it takes none",
        ),
    ],
)  # fmt: skip
def test_params_that_the_class_does_not_take(
    folder: Path, name: str, params: dict[str, Any], field: str, message: str, hint: str | None
) -> None:
    model = own(folder, name)
    with pytest.raises(InvalidInput) as caught:
        model.prepare(asked("x", **params))
    assert (caught.value.message, caught.value.field, caught.value.hint) == (message, field, hint)


async def test_params_of_the_file_and_of_requests(folder: Path) -> None:
    file = FILE.format(name="Louder", runtime="embedded", more="PARAMS")
    written = file.replace("PARAMS", "text: ${input.text}\n  params: {gain: '${input.gain as number | 3}'}")
    async with app_of(written, folder) as app:
        _, usual = await start(app, {"text": "a"})
        _, many = await start(app, {"text": ["a", "b"], "gain": "4"})
        with pytest.raises(InvalidInput, match="unknown field `params`"):
            await start(app, {"text": "a", "params": {"gain": 1}})
    assert usual.score == 3.0
    assert [each.score for each in many] == [4.0, 4.0]
    async with app_of(file.replace("PARAMS", "params: '${input.params}'"), folder) as app:
        _, whole = await start(app, {"text": "a", "params": {"mark": "?"}})
        _, none = await start(app, {"text": "a"})
    assert whole.label.startswith("a?:")
    assert none.score == 1.0


async def test_a_class_takes_params_from_an_input_that_the_file_does_not_bind(folder: Path) -> None:
    file = FILE.format(name="Louder", runtime="embedded", more="")
    async with app_of(file, folder) as app:
        (taken,) = app.inputs.values()
        _, one = await start(app, {"text": "a", "params": {"gain": 2}, "truncate": False})
        with pytest.raises(InvalidInput, match="`params`: expected a map, got text"):
            await start(app, {"text": "a", "params": "gain"})
        with pytest.raises(InvalidInput, match=r"no parameter `params\.gian`"):
            await start(app, {"text": ["a", "b"], "params": {"gian": 2}})
    assert one.score == 2.0
    assert input_schema(taken)["anyOf"][0]["properties"]["params"]["type"] == "object"


def test_params_of_a_class_are_not_those_of_its_task(folder: Path) -> None:
    for more in ("params: {truncate: true}", "actions: [{params: {any: 1}}]"):
        project_of(FILE.format(name="Louder", runtime="embedded", more=more), folder)
    with pytest.raises(ConfigErrors) as caught:
        project_of(FILE.format(name="Louder", runtime="embedded", more="params: 3"), folder)
    assert [str(error) for error in caught.value.errors] == [
        "`params` of component `own`: expected a map, found `3`"
    ]


@pytest.mark.process
async def test_params_over_http_are_read_by_the_worker(folder: Path) -> None:
    file = "controller: {port: 0}" + FILE.format(name="Louder", runtime="process", more="")
    async with serving(file, folder) as service:
        one = await service.run({"text": "a", "params": {"gain": 2}}, output_only=True)
        many = await service.run({"text": ["a", "b"], "params": {"gain": 5}}, output_only=True)
        wrong = await service.run({"text": "a", "params": {"gain": "loud"}}, output_only=True)
        unknown = await service.run({"text": "a", "params": {"gian": 2}}, output_only=True)
        schema = (await service.client.get("/api/workflows/__workflow__/schema")).json()
    assert one.json()["score"] == 2.0
    assert [each["score"] for each in many.json()] == [5.0, 5.0]
    assert (wrong.status_code, wrong.json()["detail"]) == (422, "`params.gain`: expected a number, got text")
    assert (unknown.status_code, unknown.json()["hint"]) == (
        422,
        "did you mean `gain`? valid: `gain`, `mark`, `tag`",
    )
    assert "params" in [field["name"] for field in schema["input"]]


async def test_a_file_of_the_project_serves_lists_and_single_texts(folder: Path) -> None:
    file = FILE.format(name="Counter", runtime="embedded", more="options: {many: 2}")
    async with app_of(file, folder) as app:
        await app.pool.until(app.settled)
        _, many = await start(app, {"text": ["a b c", "d"]})
        assert [each.label for each in many] == ["many", "few"]
        _, one = await start(app, {"text": "a"})
        assert one.label == "few"
        with pytest.raises(InvalidInput, match="not this one"):
            await start(app, {"text": ["a", "refuse"]})
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            await start(app, "boom")


@pytest.mark.process
async def test_it_has_a_worker_of_its_own(folder: Path) -> None:
    async with app_of(FILE.format(name="Plain", runtime="process", more=""), folder) as app:
        await app.pool.until(app.settled)
        assert app.ready()
        _, result = await start(app, {"text": "hello"})
        assert result.label == "hello"


def test_other_drivers_have_no_classes(folder: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        project_of(FILE.format(name="Plain", runtime="embedded", more="driver: huggingface"), folder)
    assert str(caught.value.errors[0]) == "driver `huggingface` has no classes of your own"


FAMILY = """
component:
  type: model
  task: image-upscale
  driver: custom
  architecture: {name}
  model: ./weights.pth
  runtime: embedded
  options: {{width: 7}}
"""


async def test_a_family_of_another_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"weights")
    async with app_of(FAMILY.format(name="mirror"), tmp_path) as app:
        await app.pool.until(app.settled)
        _, result = await start(app, {"image": "data:image/png;base64,iVBORw=="})
        assert (result.image.data, result.width) == (b"\x89PNG", 7)


def test_a_family_that_nobody_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors) as caught:
        project_of(FAMILY.format(name="mirrors"), tmp_path)
    assert "unknown architecture `mirrors`" in [str(error) for error in caught.value.errors]
