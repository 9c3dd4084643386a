"""The PyFlink half of `make bench-flink`: the same jobs as in Native.java, with the standard library's json.

    build/peers/bin/python bench/flink/pyflink_jobs.py process|thread JAR

Takes jobs as lines of JSON on standard input, as Bench.java does, and answers `DONE` or `FAILED` and why. JAR has the sink that writes
down when records came. In process mode a local PyFlink runs its workers as threads of this process unless it is told otherwise; here it is.
"""

import json
import os
import pathlib
import sys
from collections.abc import Iterator

os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.datastream import DataStream, KeyedProcessFunction, RuntimeContext, StreamExecutionEnvironment
from pyflink.datastream.connectors import Sink
from pyflink.datastream.connectors.file_system import FileSource, StreamFormat
from pyflink.datastream.state import ValueStateDescriptor
from pyflink.java_gateway import get_gateway


def doubled(line: str) -> Iterator[str]:
    """Parses, drops every record whose value is a multiple of ten, adds a field, prints."""
    record = json.loads(line)
    value = record["value"]
    if value % 10 != 0:
        record["doubled"] = value * 2
        yield json.dumps(record, separators=(",", ":"))


def parse(line: str) -> tuple[str, int]:
    """What the keyed job needs of a record."""
    record = json.loads(line)
    return record["user"], record["value"]


class Totals(KeyedProcessFunction):
    """Counts and sums for each user, and emits both with every record."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self.state = runtime_context.get_state(ValueStateDescriptor("totals", Types.TUPLE([Types.LONG(), Types.LONG()])))

    def process_element(self, value: tuple[str, int], ctx: KeyedProcessFunction.Context) -> Iterator[str]:
        count, total = self.state.value() or (0, 0)
        count, total = count + 1, total + value[1]
        self.state.update((count, total))
        yield json.dumps({"key": value[0], "count": count, "sum": total}, separators=(",", ":"))


def build(lines: DataStream, logic: str) -> DataStream:
    """A job's logic, between its lines and its sink."""
    if logic == "stateless":
        return lines.flat_map(doubled, output_type=Types.STRING())
    events = lines.map(parse, output_type=Types.TUPLE([Types.STRING(), Types.LONG()]))
    return events.key_by(lambda event: event[0], key_type=Types.STRING()).process(Totals(), output_type=Types.STRING())


def run(mode: str, jar: str, job: dict) -> None:
    """Runs one job to its end."""
    config = Configuration()
    config.set_string("python.execution-mode", mode)
    config.set_string("python.executable", sys.executable)
    config.set_string("python.client.executable", sys.executable)
    config.set_string("pipeline.jars", pathlib.Path(jar).absolute().as_uri())
    config.set_string("pipeline.object-reuse", "true")
    config.set_string("execution.runtime-mode", "STREAMING")
    config.set_string("restart-strategy.type", "none")
    config.set_string("source.reader.close.timeout", "200")
    env = StreamExecutionEnvironment.get_execution_environment(config)
    env.set_parallelism(job["parallelism"])
    source = FileSource.for_record_stream_format(StreamFormat.text_line_format(), *job["files"]).build()
    lines = env.from_source(source, WatermarkStrategy.no_watermarks(), "lines")
    marks = get_gateway().jvm.io.flinkbridge.bench.MarkSink.ofText(job["marks"], False)
    build(lines, job["logic"]).sink_to(Sink(marks))
    env.execute(job["logic"])


def main() -> None:
    """Takes jobs until there are no more."""
    for line in sys.stdin:
        try:
            run(sys.argv[1], sys.argv[2], json.loads(line))
            print("DONE", flush=True)
        except Exception as error:
            print("FAILED", str(error).strip().replace("\n", " | ")[-2000:], flush=True)


if __name__ == "__main__":
    main()
