"""Wait until a vLLM server holds nothing for anyone; runs alone in the worker's container.

    python3 -c HOOK URL SETTLE_S LIMIT_S

By then the gateway sends nothing new: it watches the pods and takes one out when it is marked for deletion. What it had
sent before is on its way for SETTLE_S. A prefill worker also holds KV blocks that a decode worker has yet to fetch;
they count as used, so it may go when nothing runs, waits or is held. Exits with 1, and says so, at LIMIT_S.
"""

import http.client
import os
import socket
import sys
import time
import urllib.error
import urllib.request

GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
QUIET_LOOKS = 5  # in a row: between two steps of a hand-off both sides can be quiet for a moment
EVERY_S = float(os.environ.get("PLIMSOLL_DRAIN_EVERY_S", "1"))


def held(url: str) -> float | None:
    """Sum of the gauges; None where nobody listens, and more than nothing where the server does not say."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] in GAUGES]
        return sum(values) if values else 1.0
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, (ConnectionRefusedError, socket.gaierror)) else 1.0
    except (OSError, ValueError, http.client.HTTPException):
        return 1.0


def main(url: str, settle_s: float, limit_s: float) -> None:
    """Return once nothing is held; see the module."""
    began = time.monotonic()
    quiet = 0
    while quiet < QUIET_LOOKS or time.monotonic() - began < settle_s:
        if time.monotonic() - began > limit_s:
            sys.exit(f"still busy after {limit_s:g} s: {held(url)}")
        quiet = 0 if held(url) else quiet + 1
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(os.path.expandvars(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
