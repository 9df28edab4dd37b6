"""What a card can do at best, and what a BERT asks of it."""

from __future__ import annotations

PEAKS = {
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A10": 125.0,
    "A30": 165.0,
    "V100": 125.0,
    "T4": 65.0,
}
"""Peak of matrix products in half precision, dense, in TFLOP/s, as the makers' sheets have it. The
first name that is in the device's counts."""


def peak(name: str) -> float | None:
    """Return the peak of a device in FLOP/s; None where it is not known."""
    return next((1e12 * each for part, each in PEAKS.items() if part in name), None)


def flops(tokens: int, hidden: int = 768, layers: int = 12, inner: int = 3072) -> float:
    """Return what one text costs a BERT encoder, in FLOP: 2 for each product and its sum.

    BERT-base at 16 tokens:

        >>> round(flops(16) / 1e9, 2)
        2.73
    """
    linear = 4 * hidden * hidden + 2 * hidden * inner
    attention = 2 * tokens * hidden
    return 2.0 * layers * tokens * (linear + attention)
