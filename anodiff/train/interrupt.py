"""Ctrl-C as a wish to stop after the step at hand, and Lightning as a silent servant."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")


class Event(Protocol):
    """The part of an event of threading or multiprocessing that is used."""

    def set(self) -> None:
        """Raise the flag."""
        ...

    def is_set(self) -> bool:
        """Whether it was raised."""
        ...


class Spawned:
    """An object that, unpickled in a process spawned for another device, makes it silent and deaf to Ctrl-C there.

    The first process alone hears Ctrl-C and tells the others by an event, so that all stop after the same
    step.
    """

    def __reduce__(self) -> tuple[Callable[[], Spawned], tuple[()]]:
        return _settle, ()


def _settle() -> Spawned:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _hush()
    return Spawned()


def _hush() -> None:
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|torch)\b")


@contextmanager
def quiet() -> Iterator[None]:
    """Lightning says nothing below an error inside; levels and filters are as before afterwards."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with warnings.catch_warnings():
        _hush()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def event(*, shared: bool) -> Event:
    """A flag for this process, or for those it will spawn too."""
    return multiprocessing.get_context("spawn").Event() if shared else threading.Event()


@contextmanager
def deferred(stop: Event) -> Iterator[None]:
    """The first SIGINT inside sets `stop`; a second one interrupts at once. The handler before comes back afterwards.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def handle(number: int, frame: FrameType | None) -> Any:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
