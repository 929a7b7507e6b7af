# SPDX-License-Identifier: MIT
"""The C library: finding it, its errors and options, and delivering Ctrl-C to a running call."""
from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import threading
import weakref
from typing import Any, Callable, Iterator, Mapping

from bitbyte._declarations import ffi as ffi

# ---- errors ---------------------------------------------------------------------------------------------------------------


class Error(Exception):
    """A failure of the library, with its message. `status` is the name of its status code, such as "format"."""

    status = "internal"


class ArgumentError(Error, ValueError):
    status = "argument"


class FileError(Error, OSError):
    status = "io"


class FormatError(Error, ValueError):
    status = "format"


class DataError(Error, ValueError):
    status = "data"


class OutOfMemoryError(Error, MemoryError):
    status = "memory"


class UnsupportedError(Error):
    status = "unsupported"


class NumericError(Error, ArithmeticError):
    status = "numeric"


class StoppedError(Error):
    status = "interrupted"


ERRORS: Mapping[str, type[Error]] = {
    kind.status: kind
    for kind in (ArgumentError, FileError, FormatError, DataError, OutOfMemoryError, UnsupportedError, NumericError, StoppedError)
}

# ---- the library -----------------------------------------------------------------------------------------------------------


def _open_library() -> Any:
    given, beside = os.environ.get("BITBYTE_LIBRARY"), pathlib.Path(__file__).with_name("libbitbyte.so")
    candidates = [given] if given else [str(beside)] if beside.exists() else ["libbitbyte.so.0", "libbitbyte.so"]
    reasons = []
    for candidate in candidates:
        try:
            return ffi.dlopen(candidate)
        except OSError as error:
            reasons.append(str(error))
    raise ImportError(f"cannot load BitByte's library; set BITBYTE_LIBRARY to its path: {'; '.join(reasons)}")


lib = _open_library()


def text(chars: Any) -> str:
    return ffi.string(chars).decode(errors="replace") if chars else ""


def path_bytes(path: str | os.PathLike[str]) -> bytes:
    return os.fsencode(path)


def as_exception(status: int, error: Any) -> Error:
    """The exception for a status that is not BB_OK and its bb_error."""
    return ERRORS.get(text(lib.bb_status_name(status)), Error)(text(error.message))


def call(function: Callable[..., int], *arguments: Any) -> None:
    """Calls a function that returns a status, adding its last argument, the error. C runs without the GIL."""
    error = ffi.new("bb_error *")
    status = function(*arguments, error)
    if status != lib.BB_OK:
        raise as_exception(status, error)


class Handle:
    """A pointer that is freed when its owner is collected or closed and no other handle needs it: objects of a garbage cycle are
    collected in any order."""

    _lock = threading.RLock()

    def __init__(self, owner: object, pointer: Any, free: Callable[[Any], None], *needs: Handle):
        self.pointer = pointer
        self._free, self._needs, self._users = free, needs, 1
        with self._lock:
            for other in needs:
                other._users += 1
        self.close = weakref.finalize(owner, self._drop)

    def _drop(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
        self._free(self.pointer)
        for other in self._needs:
            other._drop()


class Options:
    """A struct of options with the library's defaults and the given values; None keeps the default. Keeps its texts alive."""

    def __init__(self, type_name: str, values: Mapping[str, Any] = {}, **more: Any):
        self.type_name = type_name
        self.pointer = ffi.new(f"{type_name} *")
        self._kept: list[Any] = []
        getattr(lib, f"{type_name}_init")(self.pointer, ffi.sizeof(type_name))
        self.set({**values, **more})

    def set(self, values: Mapping[str, Any]) -> None:
        fields = {name for name, _ in ffi.typeof(self.type_name).fields} - {"struct_size", "user"}
        for name, value in values.items():
            if name not in fields:
                raise TypeError(f"{self.type_name} has no option '{name}'; it has {', '.join(sorted(fields))}")
            if value is None:
                continue
            if isinstance(value, (str, os.PathLike)):
                value = self.keep(ffi.new("char[]", path_bytes(value)))
            setattr(self.pointer, name, value)

    def keep(self, value: Any) -> Any:
        self._kept.append(value)
        return value


# ---- callbacks and Ctrl-C -----------------------------------------------------------------------------------------------------


class Callbacks:
    """Python functions that C calls. The first exception in any of them ends the work, and `check` raises it again."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._kept: list[Any] = []

    def make(self, c_type: str, function: Callable[..., Any], on_error: Any = None, then: Callable[[], None] | None = None) -> Any:
        """on_error: returned to C if `function` raises; then: called in that case, too."""

        def caught(kind: Any, error: BaseException, trace: Any) -> None:
            self.error = self.error or error
            if then:
                then()

        callback = ffi.callback(c_type, function, error=on_error, onerror=caught)
        self._kept.append(callback)
        return callback

    def check(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error


@contextlib.contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """While C runs, Python cannot see Ctrl-C, but the wake-up descriptor of its signal handler can: a thread that waits for it calls
    `stop`, the library ends its work in an orderly way, and KeyboardInterrupt follows. If the program has its
    own handler, that one is used."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    interrupted = threading.Event()

    def watch() -> None:
        while signals := reader.recv(16):
            if signal.SIGINT in signals:
                interrupted.set()
                stop()
            if before >= 0:
                os.write(before, signals)

    watcher = threading.Thread(target=watch, name="bitbyte-interrupt", daemon=True)
    watcher.start()
    try:
        yield
    except StoppedError:
        if interrupted.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.set_wakeup_fd(before)
        writer.close()
        watcher.join()
        reader.close()


class StopFlag:
    """For functions with a `stop` in their options."""

    def __init__(self) -> None:
        self.pointer = ffi.new("int *", 0)

    def set(self) -> None:
        self.pointer[0] = 1
