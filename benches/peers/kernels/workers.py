"""Processes that time one library each, of which only the one whose turn it is ever runs.

A library in a process of its own can't clash with another's symbols or OpenMP runtime. After its turn its threads have
a pause in which to stop spinning, the same for all libraries; then the process is stopped until its next turn.
"""

import ctypes
import os
import select
import signal
import subprocess
import time

PR_SET_PDEATHSIG = 1
# Longer than any runtime here spins (MKL's is set to 50 ms).
PAUSE = 0.08
LIBC = ctypes.CDLL(None)


class Refused(Exception):
    """The library doesn't do this case; the text says why."""


class Worker:
    def __init__(self, variant, threads, env, cpus, limit):
        command = [str(threads) if word == "THREADS" else word for word in variant.command]

        def before_exec():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, cpus)

        self.limit = limit
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | env | variant.env,
            preexec_fn=before_exec,
        )
        self.buffer = b""
        try:
            self._answer()
        finally:
            self._pause()

    def ask(self, line):
        """Lets the process run until it has answered `line`."""
        try:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
            return self._answer()
        except OSError as error:
            raise Refused("its process died") from error
        finally:
            self._pause()

    def ready(self, case):
        """Prepares the case; the way that is fastest and the error as a share of what is tolerated."""
        way, error = self.ask(case.line()).removeprefix("ready ").rsplit(" ", 1)
        if not float(error) <= 1:
            raise Refused(f"its error is {float(error):.1f} times what is tolerated")
        return way

    def time(self):
        """Nanoseconds of one call: the median of some 150 milliseconds of calls."""
        return float(self.ask("run"))

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def _pause(self):
        time.sleep(PAUSE)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)

    def _answer(self):
        while b"\n" not in self.buffer:
            if not select.select([self.process.stdout], [], [], self.limit)[0]:
                self.process.kill()
                raise Refused(f"no answer in {self.limit} seconds")
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                raise Refused("its process died")
            self.buffer += chunk
        line, self.buffer = self.buffer.split(b"\n", 1)
        text = line.decode(errors="replace")
        if text.startswith("none"):
            raise Refused(text.removeprefix("none").strip())
        return text
