"""The functions of bench_python_steps in a module that starts a thread, so that each process of a slot imports it by itself."""

import threading

from bench_python_steps import identity  # noqa: F401

threading.Thread(target=threading.Event().wait, daemon=True).start()
