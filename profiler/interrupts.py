"""An interrupt (Ctrl-C) that Python has lost is sent again."""

from __future__ import annotations

import os
import signal
import sys
import threading

#: Until then what lost it is over, s; another loss is mended the same way.
AGAIN_AFTER_S = 0.05


def keep_interrupts() -> None:
    """From now on no KeyboardInterrupt is dropped.

    Python only prints what is raised where nothing can take it: in the callbacks with which locks of imports end, for
    one, and start-up is little else than imports. A program that was asked to end would run on.
    """
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            before(lost)
            return
        # Not from here: it would be lost again.
        again = threading.Timer(AGAIN_AFTER_S, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
