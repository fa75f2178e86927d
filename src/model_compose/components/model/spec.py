"""What is `type: model`?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec.structs import replace

from model_compose.components.model.runtimes import LATER_RUNTIMES, Runtime, check_runtime
from model_compose.config.expression import Reference, Renderable
from model_compose.config.quantities import DURATION, KEEP_ALIVE, SIZE
from model_compose.config.spec import (
    ActionSpec,
    Catalog,
    ComponentSpec,
    DriverSpec,
    Positive,
    Report,
    TaskDriver,
    TaskSpec,
    doc,
    fields_of,
)
from model_compose.config.template import Map, compile_tree
from model_compose.config.values import Type
from model_compose.drivers.contract import Quantization
from model_compose.drivers.params import PARAMS, with_params
from model_compose.errors import ModelComposeError, did_you_mean
from model_compose.sources.spec import (
    HubSource,
    KnownSource,
    LocalSource,
    PypiSource,
    Source,
    format_of,
    format_of_name,
    mistake_in,
    parse_source,
)

#: Who hosts classes of the user's own.
OWN_DRIVER: Final = "custom"

_DEVICES = ("auto", "cpu", "cuda", "mps")


class PeftAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter that is added to the model's weights."""

    type: Annotated[Literal["lora"], doc("the only kind there is")] = "lora"
    name: Annotated[str | None, doc("its name in requests; default `peft_adapter_<i>`")] = None
    model: Annotated[
        str | HubSource | LocalSource | PypiSource | KnownSource, doc("where the adapter comes from")
    ]
    weight: Annotated[
        float, doc("how much of it is added; 0 is none; may be an expression over `input`", template=True)
    ] = 1.0
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"] | None,
        doc("number format of the adapter's weights; default: that of the model"),
    ] = None
    quantization: Annotated[
        Literal["none"] | None,
        doc(
            "adapters are small, and are not quantized",
            later=dict.fromkeys(
                ("int8", "int4", "fp4", "nf4", "fp16", "bf16"), "leave it out: an adapter is small"
            ),
        ),
    ] = None
    low_cpu_mem_usage: Annotated[bool, doc("load it without a second copy in memory")] = False


class ModelConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A model: where its weights come from, what it does, and how it runs."""

    task: Annotated[
        str | None,
        doc("what the model does; default: what the configuration of the weights tells", refers_to="task"),
    ] = None
    model: Annotated[
        str | HubSource | LocalSource | PypiSource | KnownSource | None,
        doc("where the weights come from: a path, a repository on the Hugging Face hub, a name, or a map"),
    ] = None
    driver: Annotated[
        str | None, doc("the engine; default: by the format of the weights, else by the task")
    ] = None
    device: Annotated[str, doc("`auto`, `cpu`, `cuda`, `cuda:N` or `mps`")] = "auto"
    device_mode: Annotated[Literal["single", "auto"], doc("one device, or spread over all GPUs")] = "single"
    precision: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"] | None, doc("number format to compute in")
    ] = None
    quantization: Annotated[
        Literal["none", "int8", "int4", "fp4", "nf4"] | Quantization | None,
        doc(
            "smaller weights, at some loss",
            later={"fp16": "write `precision: float16`", "bf16": "write `precision: bfloat16`"},
        ),
    ] = None
    batch_size: Annotated[
        Positive | None,
        doc("most rows in one forward pass, over all callers; default: the driver's own budget"),
    ] = None
    low_cpu_mem_usage: Annotated[bool, doc("load without a second copy of the weights in memory")] = False
    fast_tokenizer: Annotated[bool, doc("use the tokenizer's fast implementation")] = True
    max_seq_length: Annotated[Positive | None, doc("most tokens of one request")] = None
    architecture: Annotated[
        str | None, doc("family of the model, where a task knows several", aliases=("family",))
    ] = None
    implementation: Annotated[
        str | None,
        doc("with driver `custom`: a class of your own, as `./file.py:Class` or `package.module:Class`"),
    ] = None
    peft_adapters: Annotated[tuple[PeftAdapter, ...], doc("LoRA adapters")] = ()
    aliases: Annotated[
        tuple[str, ...],
        doc("other names for clients of OpenAI's API, such as `gpt-4o-mini`; each stands for one model"),
    ] = ()
    options: Annotated[dict[str, Any], doc("settings of the driver itself")] = {}
    runtime: Annotated[
        Literal["native", "process", "virtualenv", "embedded"] | Runtime,
        doc(
            "`process` (the same as `native`): a worker process; `virtualenv`: one in a Python environment "
            "of its own; `embedded`: inside the service, unprotected",
            later=LATER_RUNTIMES,
        ),
    ] = "process"
    preload: Annotated[bool, doc("load when the service starts, not at the first request")] = True
    keep_alive: Annotated[
        float,
        doc("unload after so long without a request; 0 at once, -1 never", quantity=KEEP_ALIVE),
    ] = float("inf")
    memory: Annotated[
        int | None,
        doc("memory that it takes, where that cannot be measured or estimated", quantity=SIZE),
    ] = None
    max_queue: Annotated[int, doc("requests that may wait; one more is answered 429", ge=1)] = 256
    load_timeout: Annotated[
        float, doc("how long loading may take, without the download; then it has failed", quantity=DURATION)
    ] = 900.0
    warmup: Annotated[bool, doc("compute once before the first request")] = False

    @property
    def quantized(self) -> Quantization | None:
        """How the weights are quantized, if they are."""
        if isinstance(self.quantization, Quantization):
            return self.quantization
        if self.quantization is None or self.quantization == "none":
            return None
        return Quantization(type=self.quantization)

    @property
    def embedded(self) -> bool:
        """Whether it runs inside the service instead of a process of its own."""
        return self.where.type == "embedded"

    @property
    def elsewhere(self) -> bool:
        """Whether another Python than the service's runs it."""
        return self.where.type == "virtualenv" or self.where.python is not None

    @property
    def where(self) -> Runtime:
        """Where it runs, also if that is written as a word."""
        return self.runtime if isinstance(self.runtime, Runtime) else Runtime(type=self.runtime)


def source_of(model: str | Source) -> Source:
    """What `model:` names, a plain text included."""
    return parse_source(model) if isinstance(model, str) else model


def adapter_name(adapter: PeftAdapter, index: int) -> str:
    """The name of an adapter, given or made."""
    return adapter.name or f"peft_adapter_{index}"


def chosen_driver(config: ModelConfig, task: TaskSpec, catalog: Catalog) -> str:
    """The driver that a component names; else that of its weights' format; else the task's first."""
    if config.driver is not None:
        return config.driver
    if config.implementation is not None:
        return OWN_DRIVER
    form = format_of(source_of(config.model)) if config.model is not None else None
    for name in catalog.drivers():
        driver = catalog.driver(name)
        if driver is not None and form is not None and form in driver.formats:
            return name
    return task.default_driver or next(iter(task.drivers))


def task_driver(task: TaskSpec, driver: DriverSpec, config: ModelConfig | None = None) -> TaskDriver | None:
    """How a driver does a task; None if it does not. A class of the user's own may do any."""
    if config is not None and config.implementation is not None and driver.own is not None:
        return TaskDriver(driver.own)
    return task.drivers.get(driver.name) or driver.tasks.get(task.name)


def implementation_of(config: ModelConfig, task: TaskSpec, how: TaskDriver, catalog: Catalog) -> str | None:
    """What is imported in the worker; None where `architecture` names nothing that anybody knows."""
    if config.architecture is None or not how.families:
        return how.implementation
    return how.families.get(config.architecture) or catalog.family(task.name, config.architecture)


def _action(config: ModelConfig, catalog: Catalog, report: Report) -> ActionSpec | None:
    """Check what spans several keys; -> what an action of this model takes, None if its task is unknown."""
    task = None if config.task is None else catalog.task(config.task)
    if task is None:
        return None
    driver = _driver(config, task, catalog, report)
    how = task_driver(task, driver, config) if driver else None
    own = config.implementation is not None
    _check_device(config, driver, report)
    if not report.wrong("runtime"):
        check_runtime(config.where, driver, report)
    _check_sources(config, driver, report)
    if driver is not None:
        _check_refused(config, driver, report)
        # A class of the user's own checks its options itself: it is imported in the worker only.
        options = (
            None
            if (own and driver.own) or _is_foreign(config, how)
            else report.read(driver.options, "options", more=driver.more_options)
        )
        if driver.check is not None and options is not None:
            driver.check(config, options, report)
        _check_family(config, task, how, catalog, report)
    blend = _blend(config, task, report)
    return ActionSpec(
        # What such a class takes besides stands in `params`, and nothing else does.
        request=with_params(task.request) if own else task.request,
        main=task.main,
        nested=() if own else (PARAMS,),
        refuses=how.refuses if how else {},
        result=task.result,
        chunk=task.chunk,
        streams_in=tuple(
            f.name for f in fields_of(task.request) if f.name == task.main and f.many and not f.media
        ),
        needs=task.needs if blend is None else _needs_weights(blend, task),
        given={} if blend is None else {"adapters": blend},
    )


def _complete(config: ModelConfig, catalog: Catalog, report: Report) -> ModelConfig:
    """Have the weights tell the task that the file does not."""
    if config.task is not None or report.wrong("task"):
        return config
    if config.model is None or _are_wrong(config.model, report):
        report.error("`task` is missing", hint=f"valid: {_tasks(catalog)}")
        return config
    try:
        task = catalog.infer_task(source_of(config.model))
    except ModelComposeError as error:
        report.error(f"`task` is missing: {error}", "model", hint=f"valid tasks: {_tasks(catalog)}")
        return config
    if task is None:
        report.warn("`task` is not named: the weights will tell it, and nothing more is checked here")
    return replace(config, task=task)


def _tasks(catalog: Catalog) -> str:
    return ", ".join(f"`{name}`" for name in catalog.tasks())


def _driver(config: ModelConfig, task: TaskSpec, catalog: Catalog, report: Report) -> DriverSpec | None:
    if report.wrong("driver") or (config.driver is None and _are_wrong(config.model, report)):
        return None
    name = chosen_driver(config, task, catalog)
    key = "driver" if config.driver is not None else "model"
    driver = catalog.driver(name)
    if driver is not None and task_driver(task, driver, config) is not None:
        if config.implementation is not None and driver.own is None:
            way_out = f"write `driver: {OWN_DRIVER}`, or leave it out"
            report.error(f"driver `{name}` has no classes of your own", "implementation", hint=way_out)
        return driver
    able = ", ".join(_able(task, catalog))
    hint = f"drivers that do this task: {able}" if able else None
    if driver is not None:
        report.error(f"driver `{name}` does not do task `{task.name}`", key, hint=hint)
    else:
        report.error(f"unknown driver `{name}`", key, hint=did_you_mean(name, catalog.drivers()))
    return None


def _is_foreign(config: ModelConfig, how: TaskDriver | None) -> bool:
    """Whether `architecture` can only be a family of another package."""
    return how is not None and bool(how.families) and config.architecture not in (None, *how.families)


def _check_family(
    config: ModelConfig, task: TaskSpec, how: TaskDriver | None, catalog: Catalog, report: Report
) -> None:
    if how is None or config.architecture is None:
        return
    if how.families and implementation_of(config, task, how, catalog) is None:
        hint = did_you_mean(config.architecture, how.families)
        report.error(f"unknown architecture `{config.architecture}`", "architecture", hint=hint)


def _are_wrong(model: str | Source | None, report: Report) -> bool:
    """Whether nobody can tell which weights are meant; that is told."""
    return report.wrong("model") or (model is not None and mistake_in(source_of(model)) is not None)


def _able(task: TaskSpec, catalog: Catalog) -> Iterator[str]:
    """Drivers that do a task, each with the weights that it takes."""
    for name in catalog.drivers():
        driver = catalog.driver(name)
        if driver is not None and task_driver(task, driver) is not None:
            yield f"`{name}`" + (f" (with {_files(driver.reads)})" if driver.reads else "")


def _files(formats: tuple[str, ...]) -> str:
    return f"{' or '.join(name.upper() if name in ('gguf', 'onnx') else name for name in formats)} files"


def _check_refused(config: ModelConfig, driver: DriverSpec, report: Report) -> None:
    """Note keys that the driver does not have, unless they say what happens anyway."""
    for field in fields_of(ModelConfig):
        _check_key(config, field.name, field.default, driver, report, ())
    for i, adapter in enumerate(config.peft_adapters):
        for field in fields_of(PeftAdapter):
            _check_key(adapter, field.name, field.default, driver, report, ("peft_adapters", i))


def _check_key(
    config: ModelConfig | PeftAdapter,
    name: str,
    default: Any,
    driver: DriverSpec,
    report: Report,
    path: tuple[str | int, ...],
) -> None:
    reason = driver.refuses.get(name)
    if reason is not None and getattr(config, name) not in (default, "none", "auto"):
        report.error(f"`{name}` cannot be used with driver `{driver.name}`: {reason}", *path, name)


def _check_device(config: ModelConfig, driver: DriverSpec | None, report: Report) -> None:
    kind, _, number = config.device.partition(":")
    if config.device not in _DEVICES and not (kind == "cuda" and number.isascii() and number.isdecimal()):
        hint = "valid: `auto`, `cpu`, `mps`, `cuda`, and one of several GPUs as `cuda:0`"
        report.error(f"unknown device `{config.device}`", "device", hint=hint)
    takes_precision = driver is None or "precision" not in driver.refuses
    if config.device == "cpu" and config.precision == "float16" and takes_precision:
        report.warn("`float16` is slow on a CPU: write `bfloat16` or `float32`", "precision")


def _check_sources(config: ModelConfig, driver: DriverSpec | None, report: Report) -> None:
    if config.model is not None:
        _check_source(config.model, driver, ("model",), report)
    elif not (report.wrong("model") or config.implementation) and (driver is None or driver.needs_model):
        message = "`model` is missing: where do the weights come from?"
        report.error(message, hint="a path such as `./model.gguf`, or `owner/repository` on the hub")
    seen: set[str] = set()
    for i, adapter in enumerate(config.peft_adapters):
        _check_source(adapter.model, None, ("peft_adapters", i, "model"), report)
        name = adapter_name(adapter, i)
        if name in seen:
            report.error(f"two adapters are named `{name}`", "peft_adapters", i, "name")
        seen.add(name)


def _check_source(
    model: str | Source, driver: DriverSpec | None, path: tuple[str | int, ...], report: Report
) -> None:
    source = source_of(model)
    mistake = mistake_in(source)
    if mistake is not None:
        field = () if isinstance(model, str) else (mistake.field,)
        report.error(mistake.message, *path, *field, hint=mistake.hint)
    elif isinstance(model, str) and isinstance(source, HubSource) and format_of_name(model):
        hint = f"write `./{model}` for the file, or a map with `repository` and `filename`"
        report.error(f"`{model}` looks like a file, and means a repository on the hub", *path, hint=hint)
    elif isinstance(source, LocalSource) and source.format and _ending(source) not in (None, source.format):
        message = f"`format` is `{source.format}`, and the file is called `{source.path}`"
        report.error(message, *path, "format", hint="leave `format` out: the ending of the file tells it")
    elif driver is not None and driver.reads:
        _check_format(source, driver, path, report)


def _ending(source: LocalSource) -> str | None:
    return format_of_name(source.path)


def _check_format(source: Source, driver: DriverSpec, path: tuple[str | int, ...], report: Report) -> None:
    """Note weights that the driver cannot load, as far as the file tells."""
    form = format_of(source)
    wanted = f"driver `{driver.name}` loads {_files(driver.reads)}"
    if form is not None and form not in driver.reads:
        report.error(f"{wanted}, and `{source}` is {form}", *path)
    elif isinstance(source, HubSource) and source.filename is None and "safetensors" not in driver.reads:
        hint = "write `model:` as a map with `repository` and `filename`"
        report.error(f"{wanted}, and none of `{source.repository}` is named", *path, hint=hint)


def _blend(config: ModelConfig, task: TaskSpec, report: Report) -> Map | None:
    """The adapters' weights for a request as a tree, None if they are the same for all."""
    changing = [i for i, a in enumerate(config.peft_adapters) if isinstance(a.weight, Renderable)]
    if not changing:
        return None
    if all(field.name != "adapters" for field in fields_of(task.request)):
        for i in changing:
            message = f"`weight` must be a number: task `{task.name}` has one blend for all requests"
            report.error(message, "peft_adapters", i, "weight")
        return None
    weights: dict[str, Any] = {adapter_name(a, i): a.weight for i, a in enumerate(config.peft_adapters)}
    for i in changing:
        tree = report.tree("peft_adapters", i, "weight")
        if isinstance(tree, Reference) and tree.type is None:
            tree = replace(tree, type=Type("number"))
        weights[adapter_name(config.peft_adapters[i], i)] = tree
    tree = compile_tree(weights)
    return tree if isinstance(tree, Map) else None  # nothing varies where an expression is wrong


def _needs_weights(blend: Map, task: TaskSpec) -> Callable[[Mapping[str, Any], str], bool]:
    """An adapter that is weighed by the input cannot do without the number."""

    def needs(constants: Mapping[str, Any], key: str) -> bool:
        if constants == blend.constants:
            return True
        return task.needs is not None and task.needs(constants, key)

    return needs


SPEC = ComponentSpec(
    name="model",
    summary="A model that runs on this machine.",
    config=ModelConfig,
    action=_action,
    complete=_complete,
    implementation="model_compose.components.model.component:ModelComponent",
    direct=True,
    aliases=lambda config: config.aliases,
)
