"""Flink Bridge: steps of a stream pipeline in Python.

A step is a function that takes a message, or a class with a `process` method. It returns nothing, one output, or several:

>>> from flink_bridge import Message
>>> def clean(message: Message):
...     event = message.json()
...     if "user" in event:
...         return {"user": event["user"].lower()}

and a pipeline names it: `{ name: clean, kind: python, module: app.steps, function: clean }`. docs/python.md tells the rest.
"""

from .message import Json, Message, To
from .step import (
    BYTES,
    FLOAT,
    INT,
    JSON,
    PICKLE,
    TEXT,
    Aggregate,
    Codec,
    Context,
    Counter,
    Gauge,
    Histogram,
    ListState,
    MapState,
    Metrics,
    States,
    Step,
    Timer,
    Timers,
    Transient,
    ValueState,
    asynchronous,
    batch,
    filter,
    flat_map,
    map,
    reduce,
    route,
)

__version__ = "0.1.0"

__all__ = [
    "BYTES",
    "FLOAT",
    "INT",
    "JSON",
    "PICKLE",
    "TEXT",
    "Aggregate",
    "Codec",
    "Context",
    "Counter",
    "Gauge",
    "Histogram",
    "Json",
    "ListState",
    "MapState",
    "Message",
    "Metrics",
    "States",
    "Step",
    "Timer",
    "Timers",
    "To",
    "Transient",
    "ValueState",
    "asynchronous",
    "batch",
    "filter",
    "flat_map",
    "map",
    "reduce",
    "route",
]
