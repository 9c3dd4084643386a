"""What stands around a Python step, as lines of name, value, unit: unary calls against a plain grpcio server with the same function, the time
until a sidecar is ready, and the memory of a slot and the time until an heir waits, with modules out of a template and without. Run by
`make bench-steps`.

    bench_python.py BUILD [--serve ADDRESS]     the second: only the grpcio server
"""

import concurrent.futures
import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
PIPELINE = """name: bench
sources: {{ in: {{ kind: generator, count: 1 }} }}
steps:
  - {{ name: same, kind: python, module: {}, function: identity }}
sinks: {{ out: {{ kind: discard }} }}
"""
HEIRS = 20  # that are killed, to see how long the next ones take


def serve(address):
    """The function behind grpcio, as a Python worker without the bridge would be."""
    import grpc

    sys.path.insert(0, str(TOP / "build" / "e2e_proto"))
    import flink_worker_pb2 as messages
    import flink_worker_pb2_grpc as service

    def identity(message):
        return message

    class Worker(service.FlinkWorkerServiceServicer):
        def ProcessMessage(self, request, context):
            return messages.ProcessMessageResponse(messages=[identity(request.message)])

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=10))  # as its tutorial has it
    service.add_FlinkWorkerServiceServicer_to_server(Worker(), server)
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


def generate():
    """The classes of the unary contract."""
    out = TOP / "build" / "e2e_proto"
    out.mkdir(parents=True, exist_ok=True)
    proto = TOP / "proto"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}", proto / "flink_worker.proto"],
        check=True,
    )


def start(build, folder, slots, module="bench_python_steps", flags=()):
    """A sidecar; returns it and the ms until it served."""
    (folder / "p.yaml").write_text(PIPELINE.format(module))
    subprocess.run([build / "bridgectl", "compile", folder / "p.yaml", "-o", folder / "d.yaml"], check=True)
    command = [build / "bridged", "--descriptor", folder / "d.yaml", "--slots", str(slots), "--listen", f"unix:{folder}/s{slots}"]
    begin = time.monotonic()
    sidecar = subprocess.Popen([*command, "--python-path", TOP / "bench" / "python", *flags], stderr=subprocess.PIPE, text=True)
    for line in sidecar.stderr:
        if "serving pipeline" in line:
            return sidecar, (time.monotonic() - begin) * 1000
    raise SystemExit("the sidecar did not start")


def stop(process):
    process.terminate()
    process.wait()


def children(pid):
    """Process ids below a process."""
    listed = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in listed]


def memory_kib(sidecar):
    """Its processes' memory, shared pages shared out."""
    total = 0
    for pid in [sidecar.pid, *children(sidecar.pid)]:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total


def heirs(sidecar):
    """The process ids of heirs that wait."""
    found = []
    for pid in children(sidecar.pid):
        with contextlib.suppress(OSError):
            if "-h" in pathlib.Path(f"/proc/{pid}/comm").read_text():
                found.append(pid)
    return found


def heirs_wait(sidecar, count, gone=None):
    """Waits until so many heirs are there, another one in place of `gone`; returns them."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = heirs(sidecar)
        if len(found) == count and gone not in found:
            return found
        time.sleep(0.0005)
    raise SystemExit("the heirs did not come")


def slot_memory(build, folder, module, flags):
    """MiB that a further slot takes with its heir: the median of three."""
    memory = {2: [], 4: []}
    for _ in range(3):
        for slots, found in memory.items():
            sidecar, _ = start(build, folder, slots, module, flags)
            heirs_wait(sidecar, slots)
            found.append(memory_kib(sidecar))
            stop(sidecar)
    return (statistics.median(memory[4]) - statistics.median(memory[2])) / 2 / 1024


def heir_time(build, folder, module, flags):
    """The median of the ms from an heir's death until the next one waits."""
    sidecar, _ = start(build, folder, 1, module, flags)
    took = []
    for _ in range(HEIRS):
        (heir,) = heirs_wait(sidecar, 1)
        begin = time.monotonic()
        os.kill(heir, signal.SIGKILL)
        heirs_wait(sidecar, 1, heir)
        took.append((time.monotonic() - begin) * 1000)
    stop(sidecar)
    return statistics.median(took)


def compare_imports(build, folder):
    """What a further slot and another heir cost, with modules of the standard library alone and with numpy, out of a template or not."""
    for imports, flags in (("", []), ("numpy_", ["--python-venv", TOP / "build" / "bench-venv"])):
        for alone, module in (("", "bench_python_steps"), ("_alone", "bench_python_alone")):
            print(f"python_{imports}slot_pss{alone}\t{slot_memory(build, folder, module, flags):.1f}\tMiB", flush=True)
            print(f"python_{imports}heir_ms{alone}\t{heir_time(build, folder, module, flags):.1f}\tms", flush=True)


def cpu_us(pids):
    """The CPU time of all threads of processes."""
    stats = [file.read_text() for pid in pids for file in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(stat.split()[0]) for stat in stats) / 1000


def compare_unary(build, folder):
    """Calls to the sidecar and to grpcio: how many a second, which other work on the machine shows in, and what CPU each takes of the servers."""
    other = subprocess.Popen([sys.executable, __file__, build, "--serve", f"unix:{folder}/other"])
    sidecar, _ = start(build, folder, 1)
    servers = [[sidecar.pid, *children(sidecar.pid)], [other.pid]]

    def load(rounds):
        command = [build / "bench" / "load_unary", "16", rounds, "300", f"unix:{folder}/s1", f"unix:{folder}/other"]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    load("1")  # both serve from then on
    before = [cpu_us(pids) for pids in servers]
    lines = load(os.environ.get("ROUNDS", "11"))
    calls = [int(value) for name, value, unit in map(str.split, lines.splitlines()) if unit == "calls"]
    each = [(cpu_us(pids) - start) / count for pids, start, count in zip(servers, before, calls, strict=True)]
    print(lines, end="")
    print(f"unary_python_cpu_us\t{each[0]:.1f}\tus\nunary_python_grpcio_cpu_us\t{each[1]:.1f}\tus")
    print(f"unary_python_cpu_ratio\t{each[1] / each[0]:.1f}\tx", flush=True)
    stop(sidecar)
    stop(other)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        return serve(sys.argv[3])
    generate()
    with tempfile.TemporaryDirectory(prefix="b") as name:
        folder = pathlib.Path(name)
        ready = []
        for _ in range(5):
            sidecar, took = start(build, folder, 1)
            ready.append(took)
            stop(sidecar)
        print(f"python_ready_ms\t{statistics.median(ready):.0f}\tms", flush=True)
        compare_imports(build, folder)
        compare_unary(build, folder)
    return None


if __name__ == "__main__":
    main()
