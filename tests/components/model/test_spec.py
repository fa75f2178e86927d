"""Do the keys of a model go together, and is what does not told with a way out?"""

from __future__ import annotations

from typing import Any

import pytest
from tests.config.catalog import FixedCatalog
from tests.config.projects import errors, mistake, project, told, underlined

from model_compose.components.model.spec import ModelConfig, chosen_driver, source_of, task_driver
from model_compose.compose.catalog import BuiltIn
from model_compose.config.expression import Scope, references, render
from model_compose.sources.spec import HubSource, KnownSource, LocalSource, PypiSource

TEXT = "type: model, task: text-generation"
EMBED = "type: model, task: text-embedding"
REVISED = HubSource(repository="a/b", filename="m.gguf", revision="1.10")
FILES = "driver `llamacpp` loads GGUF files"


def config(keys: str, kind: str = TEXT) -> ModelConfig:
    (component,) = project(f"component: {{{kind}, {keys}}}").components.values()
    assert isinstance(component.config, ModelConfig)
    return component.config


def driver(keys: str) -> str:
    catalog = FixedCatalog()
    found = config(keys, EMBED)
    task = catalog.task(found.task or "")
    assert task is not None
    return chosen_driver(found, task, catalog)


class TestSources:
    @pytest.mark.parametrize(
        ("model", "source"),
        [
            ("./models/m.gguf", LocalSource(path="./models/m.gguf")),
            ("../m.gguf", LocalSource(path="../m.gguf")),
            ("~/m.gguf", LocalSource(path="~/m.gguf")),
            ("/srv/m.gguf", LocalSource(path="/srv/m.gguf")),
            (r"'C:\models\m.gguf'", LocalSource(path=r"C:\models\m.gguf")),
            ("'C:/models/m.gguf'", LocalSource(path="C:/models/m.gguf")),
            ("{path: m.gguf}", LocalSource(path="m.gguf")),
            ("{path: m, format: gguf}", LocalSource(path="m", format="gguf")),
            ("{repository: a/b, filename: c/m.gguf}", HubSource(repository="a/b", filename="c/m.gguf")),
            (
                "{repository: a/b, filename: m.gguf, revision: 1.10}",
                HubSource(repository="a/b", filename="m.gguf", revision="1.10"),
            ),
            ("{package: 'p==1.0', filename: m.gguf}", PypiSource(package="p==1.0", filename="m.gguf")),
            (
                "{provider: pypi, package: 'p==1.0', filename: m.gguf}",
                PypiSource(package="p==1.0", filename="m.gguf"),
            ),
            ("buffalo_l", KnownSource(name="buffalo_l")),
            ("{name: buffalo_l}", KnownSource(name="buffalo_l")),
            ("{provider: known, name: buffalo_l}", KnownSource(name="buffalo_l")),
        ],
    )
    def test_weights_come_from_a_path_a_repository_or_a_package(self, model: str, source: Any) -> None:
        found = config(f"model: {model}").model
        assert found is not None
        assert source_of(found) == source

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ("models/m.gguf", "`models/m.gguf` looks like a file, and means a repository on the hub"),
            ("m.safetensors", "`m.safetensors` looks like a file, and means a repository on the hub"),
            (r"'.\m.gguf'", r"`.\m.gguf` is not the name of a repository"),
            ("{path: ''}", "the path is empty"),
            ("{path: ./m.gguf, format: pytorch}", "`format` is `pytorch`, and the file is called `./m.gguf`"),
            ("{repository: a/b, path: ./m}", "unknown field `path` in `model` of the component"),
            ("{provider: ftp, path: m}", "unknown provider `ftp` in `model` of the component"),
            (
                "{repository: a/b, filename: ../m.gguf}",
                "`../m.gguf` is not the path of a file inside the source",
            ),
            ("{package: p, filename: m.gguf}", "`p` does not name exactly one version of a package"),
            ("{name: buffalo}", "no weights are known as `buffalo`"),
            ("RealESRGAN_x4plus.pth", "`RealESRGAN_x4plus.pth` is not the name of a repository"),
        ],
    )
    def test_what_names_no_weights_is_told(self, model: str, message: str) -> None:
        assert told(f"component: {{{EMBED}, model: {model}}}") == [message]

    @pytest.mark.parametrize(
        "keys",
        [
            "task: image-upscale, architecture: real-esrgan, model: RealESRGAN_x4plus, scale: 4",
            "task: image-upscale, architecture: swinir, model: 003_realSR_BSRGAN_DFO_s64w8_SwinIR-M_x4_GAN",
            "task: image-upscale, architecture: esrgan, model: {name: ESRGAN_SRx4}",
            "task: face-embedding, model: buffalo_l",
            "task: face-embedding, driver: custom, architecture: insightface, model: antelopev2",
        ],
    )
    def test_known_names_need_no_driver_of_their_own(self, keys: str) -> None:
        text = f"component: {{type: model, {keys}, image: '${{input.photo as image}}'}}"
        catalog = BuiltIn()
        (component,) = project(text, catalog=catalog).components.values()
        assert isinstance(component.config, ModelConfig)
        task = catalog.task(component.config.task or "")
        assert task is not None
        assert chosen_driver(component.config, task, catalog) == "custom"

    def test_a_driver_that_cannot_load_known_weights_says_so(self) -> None:
        assert told(f"component: {{{TEXT}, driver: llamacpp, model: buffalo_l}}") == [
            "driver `llamacpp` loads GGUF files, and `buffalo_l` is onnx"
        ]

    def test_weights_that_cannot_be_told_choose_no_driver(self) -> None:
        text = "component: {type: model, task: chat-completion, model: a/b/c}"
        assert told(text, catalog=BuiltIn()) == ["`a/b/c` is not the name of a repository"]

    def test_weights_must_be_named(self) -> None:
        error = mistake(f"component: {{{TEXT}, driver: llamacpp}}")
        assert error.message == "`model` is missing: where do the weights come from?"

    @pytest.mark.parametrize("model", ["[./m.gguf]", "${env.UNSET}", "{repositroy: a/b}", "'${input.m}'"])
    def test_weights_that_cannot_be_read_are_not_missing(self, model: str) -> None:
        assert not any(
            "where do the weights" in message for message in told(f"component: {{{TEXT}, model: {model}}}")
        )


class TestDrivers:
    @pytest.mark.parametrize(
        ("keys", "name"),
        [
            ("model: ./m.gguf", "llamacpp"),
            ("model: ./M.GGUF", "llamacpp"),
            ("model: {repository: a/b, filename: m.gguf}", "llamacpp"),
            ("model: {path: ./m, format: gguf}", "llamacpp"),
            ("model: a/b", "torch"),
            ("model: ./m.safetensors", "torch"),
            ("model: ./m", "torch"),
            ("model: ./m.gguf, driver: torch", "torch"),
            ("model: ./m, driver: llamacpp", "llamacpp"),
        ],
    )
    def test_the_driver_is_the_named_one_or_that_of_the_weights_or_of_the_task(
        self, keys: str, name: str
    ) -> None:
        assert driver(keys) == name

    def test_a_task_without_a_default_has_its_first_driver(self) -> None:
        catalog = FixedCatalog()
        task, llamacpp = catalog.task("token-counting"), catalog.driver("llamacpp")
        assert task is not None
        assert llamacpp is not None
        assert chosen_driver(ModelConfig(task="token-counting", model="./m"), task, catalog) == "llamacpp"
        assert task_driver(task, llamacpp) is not None

    @pytest.mark.parametrize(
        ("keys", "message", "part"),
        [
            ("driver: lama, model: ./m.gguf", "unknown driver `lama`", "lama"),
            (
                "driver: llamacpp, model: a/b",
                f"{FILES}, and none of `a/b` is named",
                "a/b",
            ),
            (
                "driver: llamacpp, model: ./m.bin",
                f"{FILES}, and `./m.bin` is pytorch",
                "./m.bin",
            ),
            (
                "model: ./m.gguf, precision: float16",
                "`precision` cannot be used with driver `llamacpp`: the file fixes it",
                "float16",
            ),
            (
                "model: ./m.gguf, options: {batch: 1}",
                "unknown field `batch` in `options` of the component",
                "batch",
            ),
        ],
    )
    def test_what_a_driver_does_not_do_is_told(self, keys: str, message: str, part: str) -> None:
        error = mistake(f"component: {{{TEXT}, {keys}}}")
        assert (error.message, underlined(error)) == (message, part)

    def test_a_task_that_a_driver_does_not_do_names_those_that_do(self) -> None:
        error = mistake("component: {type: model, task: token-counting, driver: torch, model: ./m}")
        assert error.message == "driver `torch` does not do task `token-counting`"
        assert error.hint == "drivers that do this task: `llamacpp` (with GGUF files)"

    @pytest.mark.parametrize("keys", ["precision: auto", "quantization: none", "precision: null"])
    def test_a_refused_key_may_say_what_happens_anyway(self, keys: str) -> None:
        assert config(f"model: ./m.gguf, {keys}").task == "text-generation"

    def test_a_driver_that_cannot_be_read_is_told_once(self) -> None:
        assert len(errors(f"component: {{{TEXT}, driver: '${{env.UNSET}}', model: a/b}}")) == 1


class TestPlaces:
    @pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15", "mps"])
    def test_devices(self, device: str) -> None:
        assert config(f"model: ./m.gguf, device: '{device}'").device == device

    @pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CPU", "cuda:٣", ""])
    def test_other_devices_are_refused(self, device: str) -> None:
        error = mistake(f"component: {{{TEXT}, model: ./m.gguf, device: '{device}'}}")
        assert error.message == f"unknown device `{device}`"
        assert "`cuda:0`" in str(error.hint)

    @pytest.mark.parametrize(
        ("runtime", "embedded"),
        [
            ("native", False),
            ("process", False),
            ("embedded", True),
            ("{type: native}", False),
            ("{type: embedded}", True),
        ],
    )
    def test_a_runtime_is_a_word_or_a_map(self, runtime: str, embedded: bool) -> None:
        assert config(f"model: ./m.gguf, runtime: {runtime}").embedded is embedded
        assert config("model: ./m.gguf").embedded is False

    @pytest.mark.parametrize("runtime", ["docker", "apple-container"])
    def test_other_runtimes_come_later(self, runtime: str) -> None:
        for written in (runtime, f"{{type: {runtime}}}"):
            (message,) = told(f"component: {{{TEXT}, model: ./m.gguf, runtime: {written}}}")
            assert message.endswith("is known, and not supported yet")
        assert (
            "unknown field `image`"
            in told(f"component: {{{TEXT}, model: ./m.gguf, runtime: {{type: process, image: x}}}}")[0]
        )

    @pytest.mark.parametrize(
        ("key", "hint"),
        [("on_demand: true", "write `preload: false`"), ("idle_timeout: 10m", "write `keep_alive: 10m`")],
    )
    def test_keys_with_another_name_here_say_so(self, key: str, hint: str) -> None:
        assert str(mistake(f"component: {{{TEXT}, model: ./m.gguf, {key}}}").hint).startswith(hint)

    def test_number_formats_that_are_no_quantization_say_what_they_are(self) -> None:
        error = mistake(f"component: {{{EMBED}, model: a/b, quantization: bf16}}")
        assert error.hint == "write `precision: bfloat16`"

    def test_half_precision_is_odd_only_where_it_is_slow(self) -> None:
        slow = f"component: {{{EMBED}, model: a/b, device: cpu, precision: float16}}"
        assert len(project(slow).warnings) == 1
        for other in (slow.replace("cpu", "cuda"), slow.replace("float16", "bfloat16")):
            assert project(other).warnings == ()


class TestAdapters:
    def action(self, adapters: str, kind: str = TEXT) -> Any:
        (component,) = project(
            f"component: {{{kind}, model: ./m.gguf, peft_adapters: {adapters}}}"
        ).components.values()
        return component.actions[0]

    def test_constant_weights_are_no_matter_of_requests(self) -> None:
        assert self.action("[{model: ./a.gguf, weight: 0.5}]").spec.given == {}

    def test_a_weight_may_be_a_number_of_the_input(self) -> None:
        action = self.action("[{name: a, model: ./a.gguf, weight: '${input.a | 0.2}'}, {model: ./b.gguf}]")
        tree = action.spec.given["adapters"]
        assert render(tree, Scope({"input": {}})) == {"a": 0.2, "peft_adapter_1": 1.0}
        assert render(tree, Scope({"input": {"a": "0.5"}})) == {"a": 0.5, "peft_adapter_1": 1.0}
        assert [reference.type.name for reference in references(tree) if reference.type] == ["number"]

    def test_a_weight_without_a_default_is_needed(self) -> None:
        spec = self.action("[{name: a, model: ./a.gguf, weight: '${input.a}'}]").spec
        assert spec.needs is not None
        assert spec.needs({"a": None}, "a")
        assert not spec.needs({"role": "user"}, "content")

    @pytest.mark.parametrize(
        ("adapters", "message"),
        [
            ("[{model: ./a.gguf, name: x}, {model: ./b.gguf, name: x}]", "two adapters are named `x`"),
            (
                "[{model: ./a.gguf, name: peft_adapter_1}, {model: ./b.gguf}]",
                "two adapters are named `peft_adapter_1`",
            ),
            ("[{model: a.gguf}]", "`a.gguf` looks like a file, and means a repository on the hub"),
            ("[{name: a}]", "`model` is missing in item 1 of `peft_adapters` of the component"),
            ("[{model: ./a.gguf, weight: '${result}'}]", "`${result}`: there is no `result` here"),
        ],
    )
    def test_a_mistake_in_an_adapter(self, adapters: str, message: str) -> None:
        assert told(f"component: {{{TEXT}, model: ./m.gguf, peft_adapters: {adapters}}}") == [message]

    def test_not_every_task_blends_by_request(self) -> None:
        adapters = "[{model: ./a.gguf, weight: '${input.a}'}]"
        error = mistake(f"component: {{{EMBED}, model: ./m.gguf, peft_adapters: {adapters}}}")
        assert (
            error.message == "`weight` must be a number: task `text-embedding` has one blend for all requests"
        )
        assert self.action("[{model: ./a.gguf, weight: 0.5}]", EMBED).spec.given == {}


def test_what_a_quantization_cannot_be_together_is_told_with_its_place() -> None:
    quantization = "quantization: {type: int8, double_quant: true}"
    (error,) = errors(f"component: {{{TEXT}, model: ./w, {quantization}}}")
    assert error.message.endswith("`double_quant` goes with `fp4` and `nf4` only")
    assert error.place is not None
