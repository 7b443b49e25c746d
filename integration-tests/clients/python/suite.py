"""Runs the official Python 5.x client through its paces against whatever serves at the given endpoints."""

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import push_cases
import send_cases
import simple_cases
import time_cases
from stage import Stage

# The longest waits come first, so that the short cases run beside them.
CASES = time_cases.CASES | simple_cases.CASES | push_cases.CASES | send_cases.CASES


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--endpoints")
    flags.add_argument("--run")
    flags.add_argument("--tls", action="store_true")
    flags.add_argument("--only")
    flags.add_argument("--jobs", type=int, default=16)
    flags.add_argument("--list", action="store_true")
    flags = flags.parse_args()
    if flags.list:
        print("\n".join(CASES))
        return True
    names = flags.only.split(",") if flags.only else list(CASES)
    unknown = set(names) - set(CASES)
    if unknown or not flags.endpoints or not flags.run:
        sys.exit(f"--endpoints and --run are needed, unknown cases: {unknown}")
    with ThreadPoolExecutor(flags.jobs) as pool:
        order = [name for name in CASES if name in names]
        passed = list(pool.map(lambda name: attempt(name, flags), order))
    print(f"{passed.count(True)} passed, {passed.count(False)} failed", flush=True)
    return all(passed)


printing = threading.Lock()


def attempt(name, flags):
    """Runs a case and prints how it ended, on one line."""
    started = time.monotonic()
    stage = Stage(name, flags)
    problem = None
    try:
        CASES[name](stage)
    except Exception as thrown:
        problem = f"{thrown} ({type(thrown).__name__}){where(thrown)}".replace("\n", " ")
    finally:
        stage.close()
    seconds = time.monotonic() - started
    with printing:
        if problem is None:
            print(f"PASS {name} {seconds:.1f}s", flush=True)
        else:
            print(f"FAIL {name}: {problem}, after {seconds:.1f}s", flush=True)
    return problem is None


def where(thrown):
    """The line of the case that did not hold."""
    trace, found = thrown.__traceback__, ""
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if file.endswith("_cases.py"):
            found = f" ({file.rsplit('/', 1)[1]}:{trace.tb_lineno})"
        trace = trace.tb_next
    return found


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    ended_well = main()
    sys.stdout.flush()
    # The client leaves threads behind that would keep the process.
    import os

    os._exit(0 if ended_well else 1)
