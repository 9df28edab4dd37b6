"""What `--tracing` asks for: OpenTelemetry, set up in each process that makes spans."""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from zstreamer.setting import ConfigError
from zstreamer.tracing.call import API

VARIABLE = "ZSTREAMER_TRACING"

OTLP = "otlp"
"""The name of `export_otlp`."""


def start(name: str, service: str) -> None:
    """Set OpenTelemetry up.

    Args:
        name: otlp, or MODULE:FUNCTION of a function without arguments, or empty for nothing.
        service: what this process is called where OTEL_SERVICE_NAME does not say it.

    Raises:
        ConfigError: a package or the function is missing; the message says what to do.
    """
    if name == OTLP:
        export_otlp(service)
    elif name:
        _named(name)()


def export_otlp(service: str) -> None:
    """Export spans by OTLP, as the OTEL_* variables say, unless a provider is there already.

    Raises:
        ConfigError: the SDK or the exporter is not installed.
    """
    wanted = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    wanted = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", wanted)
    kind = "grpc" if wanted == "grpc" else "http"
    try:
        trace: Any = importlib.import_module(API)
        sdk: Any = importlib.import_module("opentelemetry.sdk.trace")
        export: Any = importlib.import_module("opentelemetry.sdk.trace.export")
        resources: Any = importlib.import_module("opentelemetry.sdk.resources")
        module = f"opentelemetry.exporter.otlp.proto.{kind}.trace_exporter"
        exporter: Any = importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"tracing is otlp, and {error.name} is not installed: "
            f"pip install 'zstreamer[otel]' opentelemetry-exporter-otlp-proto-{kind}"
        ) from error
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    said = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = resources.Resource.create({} if said else {"service.name": service})
    provider = sdk.TracerProvider(resource=resource)
    provider.add_span_processor(export.BatchSpanProcessor(exporter.OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def flush(seconds: float) -> None:
    """Send what spans are still here, before a process ends without its exit handlers."""
    api: Any = sys.modules.get(API)
    send = None if api is None else getattr(api.get_tracer_provider(), "force_flush", None)
    if send is not None:  # it may take longer than it was told to
        thread = threading.Thread(target=send, args=(int(seconds * 1000),), daemon=True)
        thread.start()
        thread.join(seconds)


def _named(name: str) -> Callable[[], object]:
    module, _, attribute = name.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"tracing is {name!r}: {error}; give otlp, or MODULE:FUNCTION of a function that sets "
            "OpenTelemetry up"
        ) from error
    if not callable(found):
        raise ConfigError(f"tracing is {name!r}, which is no function")
    return found
