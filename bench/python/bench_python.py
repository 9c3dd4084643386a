"""What stands around a Python step, as lines of name, value, unit: unary calls against a plain grpcio server with the same function, the time
until a sidecar is ready, and the memory of a slot. Run by `make bench-steps`.

    bench_python.py BUILD [--serve ADDRESS]     the second: only the grpcio server
"""

import concurrent.futures
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
PIPELINE = """name: bench
sources: { in: { kind: generator, count: 1 } }
steps:
  - { name: same, kind: python, module: bench_python_steps, function: identity }
sinks: { out: { kind: discard } }
"""


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


def start(build, folder, slots):
    """A sidecar; returns it and the ms until it served."""
    command = [build / "bridged", "--descriptor", folder / "d.yaml", "--slots", str(slots), "--listen", f"unix:{folder}/s{slots}"]
    begin = time.monotonic()
    sidecar = subprocess.Popen([*command, "--python-path", TOP / "bench" / "python"], stderr=subprocess.PIPE, text=True)
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


def processes_wait(sidecar, count):
    """Waits until all of its processes sleep: workers for work, heirs in the mutex."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        names = [pathlib.Path(f"/proc/{pid}/comm").read_text() for pid in children(sidecar.pid)]
        if sum("-h" in name for name in names) == count:
            return
        time.sleep(0.05)
    raise SystemExit("the heirs did not come")


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        return serve(sys.argv[3])
    generate()
    with tempfile.TemporaryDirectory(prefix="b") as name:
        folder = pathlib.Path(name)
        (folder / "p.yaml").write_text(PIPELINE)
        subprocess.run([build / "bridgectl", "compile", folder / "p.yaml", "-o", folder / "d.yaml"], check=True)
        ready, memory = [], {}
        for _ in range(5):
            sidecar, took = start(build, folder, 1)
            ready.append(took)
            stop(sidecar)
        print(f"python_ready_ms\t{statistics.median(ready):.0f}\tms", flush=True)
        for slots in (2, 4):
            sidecar, _ = start(build, folder, slots)
            processes_wait(sidecar, slots)
            memory[slots] = memory_kib(sidecar)
            stop(sidecar)
        print(f"python_slot_pss\t{(memory[4] - memory[2]) / 2 / 1024:.1f}\tMiB", flush=True)
        other = subprocess.Popen([sys.executable, __file__, build, "--serve", f"unix:{folder}/other"])
        sidecar, _ = start(build, folder, 1)
        addresses = [f"unix:{folder}/s1", f"unix:{folder}/other"]
        subprocess.run([build / "bench" / "load_unary", "16", os.environ.get("ROUNDS", "11"), "300", *addresses], check=True)
        stop(sidecar)
        stop(other)
    return None


if __name__ == "__main__":
    main()
