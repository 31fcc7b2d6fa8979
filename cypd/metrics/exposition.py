"""The values as Prometheus reads them."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import core, generate_latest
from prometheus_client.utils import floatToGoString

from cypd.metrics.page import Series
from cypd.metrics.table import TABLE, Metric

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Rows = Sequence[tuple[Sequence[str], Sequence[float]]]
"""The values of the labels, and the numbers, of each series."""


class _Family:
    """One metric, as a registry for ``generate_latest``."""

    def __init__(self, metric: Metric, rows: Rows) -> None:
        self._metric = metric
        self._rows = rows

    def collect(self) -> Iterator[core.Metric]:
        """Yield the metric with its samples."""
        metric = self._metric
        # The library appends _total to the names of counters.
        family = core.Metric(metric.name.removesuffix("_total"), metric.help, metric.kind)
        for values, numbers in self._rows:
            labels = dict(zip(metric.labels, values, strict=True))
            if metric.buckets:
                _add_histogram(family, metric, labels, numbers)
            else:
                family.add_sample(metric.name, labels, numbers[0] * metric.unit)
        yield family


def _add_histogram(
    family: core.Metric, metric: Metric, labels: dict[str, str], numbers: Sequence[float]
) -> None:
    bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
    counts = list(accumulate(numbers[:-1]))
    for bound, count in zip(bounds, counts, strict=True):
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, count)
    family.add_sample(f"{metric.name}_count", labels, counts[-1])
    family.add_sample(f"{metric.name}_sum", labels, numbers[-1] * metric.unit)


async def expose(values: Mapping[Series, Sequence[float]]) -> bytes:
    """Return everything as text; other work has its turn after each metric.

    What nobody has counted yet is 0; a gauge that nobody has told is left out.
    """
    of_metric: dict[str, list[tuple[Sequence[str], Sequence[float]]]] = {}
    for series, numbers in values.items():
        of_metric.setdefault(series[0], []).append((series[1:], numbers))
    pieces = []
    for metric in TABLE:
        rows = of_metric.get(metric.name, [])
        if not rows and not metric.labels and metric.kind != "gauge":
            rows = [((), [0.0] * metric.width)]
        if rows:
            pieces.append(generate_latest(_Family(metric, rows)))
            await asyncio.sleep(0)
    return b"".join(pieces)
