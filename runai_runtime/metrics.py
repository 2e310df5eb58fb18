"""runai-ctl metrics: the overview for Prometheus. Only this imports prometheus-client."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from runai_runtime.containers import Container
from runai_runtime.errors import RefusalError, reason
from runai_runtime.host import Host
from runai_runtime.overview import GpuUse, Overview, look
from runai_runtime.pages import Figure

CLIENT_SECONDS = 5  # for who connects and then says nothing

OF_GPU: dict[str, tuple[str, Callable[[GpuUse], int | None]]] = {
    "memory": ("Memory that the GPU has", lambda use: use.gpu.total),
    "promised": ("Memory that is promised to containers", lambda use: use.promised),
    "free": ("Memory that can still be promised", lambda use: use.free),
    "used": ("Memory that the device has given, whoever has it", lambda use: use.used),
}
OF_CONTAINER: dict[str, tuple[str, Callable[[Figure], int | None]]] = {
    "share": ("The most that the container may have of the GPU", lambda figure: figure.share),
    "used": ("What the container has of the GPU", lambda figure: figure.used),
    "peak": ("The most that the container has had of the GPU", lambda figure: figure.peak),
}
REFUSED = "Requests for memory of the GPU that found no room in the share"
ENFORCEMENT = "1, with what keeps the share: agent or interposer"


# The package's own types are incomplete: families are Any here.
Gauge: Any = GaugeMetricFamily
Counter: Any = CounterMetricFamily


class HostCollector(Collector):
    """The host as it is when it is asked. What is not known is left out, never 0."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def describe(self) -> Iterable[Metric]:
        return families(Overview())

    def collect(self) -> Iterator[Metric]:
        return families(look(self.host))


def families(overview: Overview) -> Iterator[Metric]:
    for name, (help_text, of) in OF_GPU.items():
        family = Gauge(f"runai_gpu_{name}_bytes", help_text, labels=("gpu", "uuid", "name"))
        for use in overview.gpus:
            add(family, gpu_labels(use), of(use))
        yield family
    for name, (help_text, of_figure) in OF_CONTAINER.items():
        family = Gauge(f"runai_container_{name}_bytes", help_text, labels=LABELS)
        for labels, figure in figures(overview.containers):
            add(family, labels, of_figure(figure))
        yield family
    counter = Counter("runai_container_refused_requests", REFUSED, labels=LABELS)
    for labels, figure in figures(overview.containers):
        add(counter, labels, figure.refused)
    yield counter
    kept = Gauge("runai_container_enforcement", ENFORCEMENT, labels=("container", "id", "image", "by"))
    for container in overview.containers:
        add(kept, [*container_labels(container), container.by], 1)
    yield kept


LABELS = ("container", "id", "image", "gpu", "uuid")


def container_labels(container: Container) -> list[str]:
    return [container.name, container.id, container.image]


def gpu_labels(use: GpuUse) -> list[str]:
    return [str(use.gpu.index), use.gpu.uuid, use.gpu.name]


def figures(containers: list[Container]) -> Iterator[tuple[list[str], Figure]]:
    for container in containers:
        for gpu, figure in zip(container.grant["gpus"], container.figures, strict=True):
            yield [*container_labels(container), str(gpu["index"]), gpu["uuid"]], figure


def add(family: Any, labels: list[str], value: int | None) -> None:
    if value is not None:
        family.add_metric(labels, value)


def registry_of(host: Host) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(HostCollector(host))
    return registry


def as_text(host: Host) -> str:
    return generate_latest(registry_of(host)).decode()


def write_file(host: Host, path: Path) -> None:
    """By another file that is renamed, so node_exporter never reads half of it. Raises RefusalError."""
    try:
        write_to_textfile(str(path), registry_of(host))
    except OSError as error:
        raise RefusalError(f"{path} can't be written: {reason(error)}; see the folder that it lies in") from error


def application(host: Host) -> Callable[[Any, Any], Any]:
    """What answers a scrape: the metrics, or a sentence where there are none to be had."""
    metrics = make_wsgi_app(registry_of(host))

    def answer(environ: Any, start_response: Any) -> Any:
        try:
            return metrics(environ, start_response)
        except RefusalError as refusal:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"runai-ctl: {refusal}\n".encode()]

    return answer


class Handler(WSGIRequestHandler):
    timeout = CLIENT_SECONDS

    def log_message(self, *_: object) -> None:
        """Nothing: it would be a line a scrape."""


def serve(host: Host, address: str, port: int) -> None:
    """Until interrupted, one after the other: look() starts children, which a second thread would be in the way of."""
    try:
        server = make_server(address, port, application(host), handler_class=Handler)
    except OSError as error:
        raise RefusalError(f"{address}:{port} can't be listened at: {os.strerror(error.errno or 0)}") from error
    with server:
        server.serve_forever()
