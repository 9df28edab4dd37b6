"""What a process shows Prometheus, read."""

import contextlib
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

ALWAYS = ("process_", "python_")
"""Begin of names that every Python process shows."""


def page(port, path="/metrics"):
    """The text of one page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        return response.read().decode()


def families(text):
    """Name and type of every family but those that every process has, and its samples."""
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(ALWAYS):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family
    return found


def value(text, name, **labels):
    """One sample; 0 where there is none."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


def labels_of(family):
    """The names of the labels that its samples have."""
    names = {frozenset(set(sample.labels) - {"le"}) for sample in family.samples}
    with contextlib.suppress(ValueError):
        (one,) = names
        return set(one)
    return None
