"""From how a verb ended to an exit code and a message; the one place where errors become numbers."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from anodiff.cli import console
from anodiff.errors import AnodiffError, DeviceError
from anodiff.run import told

DONE = 0
BUG = 1
DATA = 3
DEVICE = DeviceError.exit_code
ANOMALY = 10
PARTLY = 11
GATE = 12
INTERRUPTED = 130


def guarded(verb: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """The exit code of a verb, whatever becomes of it; what went wrong is said on stderr.

    A person's mistake has no traceback; `args.debug` shows it.
    """
    debug = bool(getattr(args, "debug", False))
    with warnings.catch_warnings():
        warnings.showwarning = _warning(debug)
        try:
            code = verb(args)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Who read the results has seen enough. stdout is closed for good, or Python complains when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return DONE
        except KeyboardInterrupt as error:
            return _said(INTERRUPTED, str(error) or "interrupted", debug)
        except AnodiffError as error:
            return _said(error.exit_code, str(error), debug)
        except MemoryError:
            return _said(DEVICE, _MEMORY, debug)
        except OSError as error:
            known = told(error)
            return _bug(error, debug) if known is None else _said(known.exit_code, str(known), debug)
        except Exception as error:
            return _said(DEVICE, _MEMORY, debug) if _out_of_memory(error) else _bug(error, debug)


_MEMORY = (
    "Out of memory. Try a smaller --batch when scoring, --set train.batch=4 when fitting, a smaller --size, or "
    "another --device."
)


def _said(code: int, message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    console.error(message)
    return code


def _bug(error: Exception, debug: bool) -> int:
    where = traceback.extract_tb(error.__traceback__)[-1]
    hint = "" if debug else " Run the command again with --debug for the whole course."
    return _said(
        BUG,
        f"This is a bug in anodiff: {type(error).__name__}: {error} "
        f"({Path(where.filename).name}, line {where.lineno}).{hint} Please report it with the command you ran.",
        debug,
    )


def _out_of_memory(error: Exception) -> bool:
    # torch is not loaded just to name its error; its CPU allocator raises a plain RuntimeError
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "OutOfMemoryError" in kinds or "DefaultCPUAllocator: can't allocate memory" in str(error)


def _warning(debug: bool) -> Callable[..., None]:
    """How warnings are shown: those of anodiff in words, those of libraries with --debug only."""
    ours = str(Path(__file__).parents[1])

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> None:
        if debug:
            console.warning(f"{filename}:{lineno}: {category.__name__}: {message}")
        elif filename.startswith(ours) and issubclass(category, UserWarning):
            console.warning(str(message))

    return show
