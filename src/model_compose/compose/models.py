"""How does a model component of a project become a model of the pool?"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from model_compose.about import COMMAND, install_command
from model_compose.components.media import Media
from model_compose.components.model.component import ModelComponent
from model_compose.components.model.spec import (
    ModelConfig,
    adapter_name,
    chosen_driver,
    implementation_of,
    source_of,
    task_driver,
)
from model_compose.compose.environments import Environment, absolute, environment_of, require, shared
from model_compose.config.quantities import Percent
from model_compose.config.schema import Component, Project
from model_compose.config.spec import Catalog, DriverSpec, TaskDriver, TaskSpec
from model_compose.drivers.contract import LoadedAdapter, LoadOptions, LoadProgress
from model_compose.errors import DriverMissing, InstallFailed, ModelComposeError
from model_compose.runtime.call import Decoders
from model_compose.runtime.host import named
from model_compose.runtime.memory import installed_bytes
from model_compose.runtime.messages import PROTOCOL, Load
from model_compose.runtime.model import ModelPlan
from model_compose.runtime.pool import DOWNLOADING, ModelPool, ModelSetup, Prepared
from model_compose.sources.fetch import resolve
from model_compose.sources.progress import Counted, Progress
from model_compose.sources.spec import LoadedSource, Source

#: What all models may take where the file sets no `memory_limit`: the rest is for everybody else.
DEFAULT_MEMORY_SHARE = 0.9

#: Makes the progress of one download, by the name of its component.
ShowProgress = Callable[[str], Progress]


class Model(msgspec.Struct, frozen=True):
    """A model component with the specs that it resolved to.

    environment  that of its own, if it has one
    python       what runs its worker; None: the service's
    """

    component: Component
    config: ModelConfig
    task: TaskSpec
    driver: DriverSpec
    how: TaskDriver
    implementation: str
    environment: Environment | None
    python: str | None

    @property
    def name(self) -> str:
        """The component's id."""
        return self.component.id

    def sources(self) -> Iterator[Source]:
        """The weights that it needs: the model's, then its adapters'."""
        if self.config.model is not None:
            yield source_of(self.config.model)
        for adapter in self.config.peft_adapters:
            yield source_of(adapter.model)


def models_of(project: Project, catalog: Catalog) -> list[Model]:
    """The model components of a checked project."""
    return [
        _model(component, component.config, project.folder, catalog)
        for component in project.components.values()
        if isinstance(component.config, ModelConfig)
    ]


def _model(component: Component, config: ModelConfig, folder: Path, catalog: Catalog) -> Model:
    task = catalog.task(config.task or "")
    assert task is not None  # a project that can run has been looked at
    driver = catalog.driver(chosen_driver(config, task, catalog))
    assert driver is not None
    how = task_driver(task, driver, config)
    assert how is not None
    implementation = implementation_of(config, task, how, catalog)
    assert implementation is not None
    where = config.where
    environment = environment_of(component.id, where, driver, how, folder)
    python = str(environment.interpreter) if environment else where.python and absolute(where.python, folder)
    return Model(component, config, task, driver, how, implementation, environment, python)


def require_drivers(models: list[Model]) -> None:
    """Raise DriverMissing, with the command that installs it, when a driver's library is not there.

    Blocks, and starts the Pythons that run workers elsewhere.
    """
    shared(model.environment for model in models if model.environment is not None)
    for model in models:
        if model.python is not None:
            modules = (*model.driver.modules, *model.how.modules)
            require(model.name, model.python, model.environment, modules)
            continue
        for needs in (model.driver, model.how):
            missing = [name for name in needs.modules if importlib.util.find_spec(name) is None]
            if missing:
                raise DriverMissing(
                    f"component `{model.name}` needs `{missing[0]}`, which is not installed",
                    hint=_way_out(model, needs, missing[0]),
                )


def missing_pythons(models: list[Model]) -> Iterator[ModelComposeError]:
    """What workers elsewhere lack, as far as the disk tells: nothing is started."""
    for model in models:
        try:
            if model.environment is not None:
                mistake = model.environment.mistake()
                if mistake is not None:
                    yield mistake
            elif model.python is not None and not Path(model.python).exists():
                yield DriverMissing(f"there is no interpreter `{model.python}` for component `{model.name}`")
        except InstallFailed as error:
            yield error


def _way_out(model: Model, needs: DriverSpec | TaskDriver, missing: str) -> str:
    """How an engine comes to be there."""
    if needs.extra:
        return install_command(needs.extra)
    if isinstance(needs, DriverSpec) and needs.requirements:
        other = model.task.default_driver
        return (
            f"write `runtime: virtualenv` into it, and run `{COMMAND} install {model.name}`; "
            f"or write `driver: {other}`"
        )
    return f"install `{missing}`"


def memory_budget(project: Project) -> dict[str, int]:
    """Bytes by pool that all loaded models together may take."""
    limit = project.settings.memory_limit
    if isinstance(limit, int):
        return {"host": limit}
    share = limit.fraction if isinstance(limit, Percent) else DEFAULT_MEMORY_SHARE
    return {"host": int(installed_bytes() * share)}


def setup(model: Model, project: Project, cores: int, scratch: Path, progress: ShowProgress) -> ModelSetup:
    """What the pool needs to know of a model."""
    config = model.config
    plan = ModelPlan(
        model.name,
        size={} if config.memory is None else {_pool(config.device, {}): config.memory},
        preload=config.preload,
        keep_alive_s=None if config.keep_alive == float("inf") else config.keep_alive,
        max_queue=config.max_queue,
        max_active=model.component.max_concurrent_count,
    )
    decoders = Decoders.of(model.task.result, model.task.chunk)

    async def prepare(report: LoadProgress) -> Prepared:
        cancel = threading.Event()

        def show(name: str) -> Progress:
            return Counted(progress(name), lambda done, total: report(DOWNLOADING, done, total))

        try:
            return await asyncio.to_thread(_prepare, model, project.folder, cores, scratch, show, cancel)
        finally:
            cancel.set()  # the thread outlives a cancelled task, but not for long

    return ModelSetup(plan, decoders, prepare, embedded=config.embedded, load_timeout_s=config.load_timeout)


def _prepare(
    model: Model,
    folder: Path,
    cores: int,
    scratch: Path,
    progress: ShowProgress,
    cancel: threading.Event,
) -> Prepared:
    """Get the weights, and say how large the model will be. Blocks."""
    require_drivers([model])
    loaded = fetch(model, folder, progress, cancel)
    options = load_options(model, loaded, cores, scratch, folder)
    request = f"{model.task.request.__module__}:{model.task.request.__qualname__}"
    size = _size(model.config.memory, options, model.driver)
    load = Load(PROTOCOL, model.implementation, request, options)
    return Prepared(load, {}, size, model.python)


def load_options(
    model: Model, loaded: list[LoadedSource], cores: int, scratch: Path, folder: Path
) -> LoadOptions:
    """What the driver is told of a model whose weights are `loaded`: its own, then its adapters'.

    folder  where relative paths of the file start
    """
    config = model.config
    source = loaded[0] if config.model is not None else None
    adapters = loaded[1:] if config.model is not None else loaded
    return LoadOptions(
        task=model.task.name,
        source=source,
        threads=cores,
        scratch=str(scratch),
        device=config.device,
        device_mode=config.device_mode,
        precision=config.precision,
        quantization=config.quantized,
        architecture=config.architecture,
        implementation=_located(config.implementation, folder),
        low_cpu_mem_usage=config.low_cpu_mem_usage,
        fast_tokenizer=config.fast_tokenizer,
        max_seq_length=config.max_seq_length,
        batch_size=config.batch_size,
        adapters=tuple(
            LoadedAdapter(
                adapter_name(a, i), lora, a.weight if isinstance(a.weight, int | float) else 1.0, a.precision
            )
            for i, (a, lora) in enumerate(zip(config.peft_adapters, adapters, strict=True))
        ),
        warmup=config.warmup,
        options=config.options,
    )


def _located(implementation: str | None, folder: Path) -> str | None:
    """The user's own class, with the file that it is in as an absolute path."""
    if implementation is None or not implementation.startswith((".", "/", "~")):
        return implementation
    path, _, name = implementation.rpartition(":")
    return f"{folder / Path(path).expanduser()}:{name}"


def _size(declared: int | None, options: LoadOptions, driver: DriverSpec) -> dict[str, int]:
    """Bytes by memory pool: as declared, or as the driver estimates. Empty if nobody knows."""
    estimate: dict[str, int] = named(driver.estimate)(options) if driver.estimate else {}
    if declared is None:
        return estimate
    return {_pool(options.device, estimate): declared}


def _pool(device: str, estimate: Mapping[str, int]) -> str:
    """The memory that a device computes in; where the driver chooses the device, it estimates that too."""
    match device.partition(":")[0]:
        case "auto":  # a driver that takes a GPU for the likely place names it beside the RAM
            return next((pool for pool in estimate if pool != "host"), "host")
        case "cpu" | "mps":  # on a Mac the GPU shares what there is
            return "host"
        case _:
            return device if ":" in device else f"{device}:0"


def fetch(
    model: Model, folder: Path, progress: ShowProgress, cancel: threading.Event, *, refresh: bool = False
) -> list[LoadedSource]:
    """The weights of a model and of its adapters, downloaded where they are not in the cache. Blocks."""
    return [
        resolve(source, base_dir=folder, progress=progress(model.name), refresh=refresh, cancel=cancel)
        for source in model.sources()
    ]


def component(model: Model, pool: ModelPool, media: Media) -> ModelComponent:
    """What workflows call."""
    return ModelComponent(model.name, model.task, pool, media, preload=model.config.preload)
