"""What does the service measure of itself?

Names are vLLM's where vLLM has the same thing, so that its dashboards work here. Histograms are filled
as calls end; everything that is a state is read when somebody asks.
Source: https://docs.vllm.ai/en/latest/usage/metrics.html
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from model_compose.compose.app import App, Observer
from model_compose.compose.run import Run
from model_compose.errors import Cancelled, ModelComposeError
from model_compose.runtime.call import Call
from model_compose.runtime.model import State

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_STATES: Final[tuple[State, ...]] = ("unloaded", "loading", "ready", "failed")


class Metrics(Observer):
    """Measures a service; `registry` is what `/metrics` shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        model = ("model_name",)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(name, text, model, registry=self.registry, buckets=_SECONDS)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels or model, registry=self.registry)

        self.first_token = histogram("vllm:time_to_first_token_seconds", "From request to first output.")
        self.per_token = histogram("vllm:time_per_output_token_seconds", "Between two outputs, on average.")
        self.latency = histogram("vllm:e2e_request_latency_seconds", "From request to end.")
        self.queued = histogram("vllm:request_queue_time_seconds", "From request to the worker.")
        self.prompt = counter("vllm:prompt_tokens", "Prompt tokens of finished requests.")
        self.generated = counter("vllm:generation_tokens", "Generated tokens of finished requests.")
        self.success = counter("vllm:request_success", "Finished requests.", "model_name", "finished_reason")
        self._errors = counter("model_compose_request_errors", "Failed requests.", "model_name", "type")
        self._runs = counter("model_compose_runs", "Runs that ended.", "workflow", "status")
        self._by_model: dict[str, _Measures] = {}
        self._runs_by = functools.cache(self._runs.labels)

    def ended(self, call: Call, error: ModelComposeError | None) -> None:
        """A call to a model ended."""
        name, times = call.model, call.times
        if error is not None:
            if not isinstance(error, Cancelled):
                self._errors.labels(name, error.code).inc()
            return
        measures = self._by_model.get(name)
        if measures is None:
            measures = self._by_model[name] = _Measures(self, name)
        measures.latency.observe(times.ended - times.submitted)
        measures.queued.observe(times.served - times.submitted)
        outcome = call.result()
        usage = outcome.usage
        if usage is not None:
            measures.prompt.inc(usage.prompt_tokens)
            measures.generated.inc(usage.completion_tokens)
        if times.first_chunk:
            measures.first_token.observe(times.first_chunk - times.submitted)
            if usage is not None and usage.completion_tokens > 1:
                spent = times.ended - times.first_chunk
                measures.per_token.observe(spent / (usage.completion_tokens - 1))
        measures.success(outcome.finish_reason or "stop").inc()

    def run_ended(self, run: Run) -> None:
        """A run ended."""
        self._runs_by(run.workflow_id, run.status).inc()

    def watch(self, app: App) -> None:
        """Show the states of the app's models too."""
        self.registry.register(_States(app))


class _Measures:
    """The measures of one model; looking them up by label each time would cost more than observing."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.first_token = metrics.first_token.labels(model)
        self.per_token = metrics.per_token.labels(model)
        self.latency = metrics.latency.labels(model)
        self.queued = metrics.queued.labels(model)
        self.prompt = metrics.prompt.labels(model)
        self.generated = metrics.generated.labels(model)
        self.success = functools.cache(functools.partial(metrics.success.labels, model))


class _States(Collector):
    def __init__(self, app: App) -> None:
        self._app = app

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: the models are not known before the app has started."""
        return ()

    def collect(self) -> Iterable[Metric]:
        labels = ["model_name"]
        running = GaugeMetricFamily("vllm:num_requests_running", "Requests that a worker has.", labels=labels)
        waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Requests in the queue.", labels=labels)
        state = GaugeMetricFamily(
            "model_compose_model_state", "1 for the state it is in.", labels=[*labels, "state"]
        )
        memory = GaugeMetricFamily(
            "model_compose_model_memory_bytes", "Memory taken.", labels=[*labels, "pool"]
        )
        engine = GaugeMetricFamily(
            "model_compose_engine", "What the engine measures.", labels=[*labels, "metric"]
        )
        for model in self._app.status():
            running.add_metric([model.name], model.active)
            waiting.add_metric([model.name], model.waiting)
            for each in _STATES:
                state.add_metric([model.name, each], float(model.state == each))
            for pool, size in model.memory.items():
                memory.add_metric([model.name, pool], size)
            for metric, value in model.metrics.items():
                engine.add_metric([model.name, metric], value)
        return (running, waiting, state, memory, engine)
