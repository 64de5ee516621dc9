"""A family's own figures from the times of its calls: rates, and the real-time factor of sound."""

from __future__ import annotations

from assay.schema import Metric


def rate(latency: Metric, amount: float, unit: str) -> Metric:
    """`amount` per call as a rate, its interval turned around with the latency's."""
    low = amount / latency.high if latency.high else None
    high = amount / latency.low if latency.low else None
    return Metric(
        value=amount / latency.value, unit=unit, low=low, high=high,
        samples=latency.samples, stable=latency.stable, better="higher",
    )  # fmt: skip


def of_sound(latency: Metric, seconds: float) -> dict[str, Metric]:
    """The real-time factor and its inverse (RTFx), over all seconds of sound of one call."""
    return {
        "real_time_factor": _real_time_factor(latency, seconds),
        "audio_seconds_per_second": rate(latency, seconds, "RTFx"),
    }


def _real_time_factor(latency: Metric, seconds: float) -> Metric:
    """Seconds of computing for each second of sound."""
    low, high = (each / seconds if each is not None else None for each in (latency.low, latency.high))
    return Metric(
        value=latency.value / seconds, unit="s/s", low=low, high=high, samples=latency.samples, stable=latency.stable,
    )  # fmt: skip


def together(first: Metric, each: Metric, times: int) -> Metric:
    """One duration and `times` another; the interval is that of both at their ends."""
    low = first.low + times * each.low if first.low is not None and each.low is not None else None
    high = first.high + times * each.high if first.high is not None and each.high is not None else None
    return Metric(
        value=first.value + times * each.value, unit="s", low=low, high=high,
        samples=first.samples, stable=first.stable and each.stable,
    )  # fmt: skip
