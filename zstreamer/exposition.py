"""Plain counts as Prometheus reads them: families of samples, made when somebody asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from zstreamer.histogram import Histogram, Sizes
from zstreamer.series import Series

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_Family: TypeAlias = "CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily"


class Families:
    """The families of some series, filled with samples one by one.

    A series without samples is shown too, with its name and meaning.

    Args:
        catalog: the series.
    """

    def __init__(self, catalog: Iterable[Series]) -> None:
        self._families = {each.name: _family(each) for each in catalog}

    def put(self, name: str, value: float, *labels: str) -> None:
        """Add a sample to a counter or gauge."""
        family = self._families[name]
        if isinstance(family, HistogramMetricFamily):
            raise TypeError(f"{name} is a histogram")
        family.add_metric(labels, value)

    def put_histogram(self, name: str, found: Histogram | Sizes, *labels: str) -> None:
        """Add a histogram."""
        family = self._families[name]
        if not isinstance(family, HistogramMetricFamily):
            raise TypeError(f"{name} is no histogram")
        family.add_metric(labels, found.buckets(), found.sum)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


def _family(series: Series) -> _Family:
    labels = list(series.labels)
    if series.kind == "counter":
        return CounterMetricFamily(series.name.removesuffix("_total"), series.words, labels=labels)
    if series.kind == "gauge":
        return GaugeMetricFamily(series.name, series.words, labels=labels)
    return HistogramMetricFamily(series.name, series.words, labels=labels)


class Exposition:
    """Everything that one process shows: its own series, and those of every Python process.

    Args:
        collectors: of its own series.
    """

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        for each in collectors:
            self._registry.register(each)

    def text(self) -> bytes:
        """Return all metrics as Prometheus reads them."""
        return generate_latest(self._registry)
