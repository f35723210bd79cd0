"""The import of Paddle, without its noise and its answer to signals."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from typing import Any

from slicedet.errors import MissingDependency


def import_paddle() -> Any:
    """The paddle package, whose import warns of compilers nobody needs here, and whose C++ of what it does not do.

    Raises MissingDependency where it is not installed.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    first = "paddle" not in sys.modules
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import paddle
            import paddle.inference
    except ImportError as error:
        raise MissingDependency("Paddle models need: pip install paddlepaddle") from error
    if first:
        # Its own answer to SIGTERM is a stack of C++, whatever Python was to do.
        paddle.disable_signal_handler()
        with suppress(ValueError):  # Not the main thread, which alone may do this.
            signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
    return paddle
