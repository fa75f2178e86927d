from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.compose.apps import app_of, project_of, start
from tests.tasks.batches import outcomes, started

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.own import OwnModel
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


def own(folder: Path, name: str, **more: Any) -> Any:
    return started(OwnModel(), options(folder, name, **more))


def test_a_class_with_everything(folder: Path) -> None:
    model = own(folder, "Counter", options={"many": 3})
    found = outcomes(model, [TextClassification(text="a, b"), TextClassification(text="a, b, c")])
    assert [outcome.result for outcome in found] == [
        {"label": "few", "score": 2.0, "label_id": 0},
        {"label": "many", "score": 2.0, "label_id": 1},
    ]
    assert model.metrics() == {"own": 1.0}


@pytest.mark.parametrize("name", ["Plain", "Batch"])
def test_a_class_with_one_method(folder: Path, name: str) -> None:
    (outcome,) = outcomes(own(folder, name), [TextClassification(text="x")])
    assert outcome.result == {"label": "x", "score": 1.0, "label_id": 0}


def test_one_that_computes_rows_one_by_one_fails_for_one_of_them(folder: Path) -> None:
    model = own(folder, "Plain")
    items = [model.prepare(TextClassification(text=text))[0] for text in ("a", "fail", "b")]
    a, failed, b = model.forward(items, None)
    assert (a["label"], b["label"]) == ("a", "b")
    assert isinstance(failed, ValueError)


def test_a_row_for_each_row(folder: Path) -> None:
    with pytest.raises(EngineError, match="`forward` gave 0 rows for 1"):
        outcomes(own(folder, "Short"), [TextClassification(text="x")])


def test_batch_size_is_the_most_rows(folder: Path) -> None:
    assert own(folder, "Batch", batch_size=7).budget()[0] == 7


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("Nothing", {}, "has neither `forward` nor `__call__`"),
        ("Missing", {}, "has no class `Missing`"),
        ("Plain", {"many": 1}, "takes no `options`"),
        ("Counter", {"meny": 1}, "`options` has no `meny`"),
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
