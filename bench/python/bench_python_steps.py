"""The steps that bench_python measures, and the same work without the host: in the same interpreter, over messages that are there already."""

import json
import time

import flink_bridge as fb

try:
    import numpy
except ImportError:
    numpy = None

ROUNDS = 40


def identity(message):
    return message


def change(message):
    value = json.loads(message.payload)
    value["value"] *= 2
    return json.dumps(value)


def total(messages):
    return [numpy.array([message.payload[6:12] for message in messages], "S6").astype("i8").sum().tobytes()]


def bare(function, messages):
    for message in messages:
        function(message)


class Bare(fb.Step):
    """Runs the bare loop over the payload's messages, and returns the nanoseconds that each took."""

    def open(self, context):
        self.function = globals()[context.options["function"]]
        self.takes_all = context.options.get("batch") == "true"
        self.messages = []
        self.count = int(context.options["count"])

    def process(self, message):
        if len(self.messages) < self.count:  # the first run brings them
            self.messages.append(fb.Message(message.payload, key="k", timestamp=1))
            return None
        start = time.process_time_ns()
        for _ in range(ROUNDS):
            if self.takes_all:
                self.function(self.messages)
            else:
                bare(self.function, self.messages)
        return str((time.process_time_ns() - start) / ROUNDS / self.count)
