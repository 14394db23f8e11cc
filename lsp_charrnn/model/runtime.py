"""ONNX Runtime, with its telemetry off: the one place that imports it.

Its official builds report to their maker over HTTPS, on by default (1.31's do): they look up a host, keep an id of the
device and a database of events in the user's cache, and send it. Nothing is to leave this machine. A variable of the
environment stops all of that, if it is there before the library is loaded (its Privacy.md); what that doesn't reach,
Windows's own tracing, the call stops.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as ort

ort.disable_telemetry_events()

__all__ = ["ort"]
