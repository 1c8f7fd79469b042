"""Reads what Prometheus is told."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from punch.gateway import Metrics


async def told(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    body, _ = await metrics.exposition("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
