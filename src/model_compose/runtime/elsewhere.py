"""How does a worker begin under a Python that is not the service's?

    python elsewhere.py FD             serve on the socket that it inherited as FD
    python elsewhere.py --look NAME... print, as JSON, what this Python is and which of these modules it lacks

Such a Python gets this package by its path, and nothing else of the service: not the packages that are
installed beside it. It must have msgspec, and what its driver imports. This file is read by interpreters
of any age, so that an old one can say that it is too old: it needs the standard library only.
"""

import importlib.machinery
import importlib.util
import json
import os
import socket
import struct
import sys

#: The oldest Python that a worker runs on, and the oldest msgspec.
OLDEST = (3, 11)
MSGSPEC = (0, 20)
#: What must be installed where a worker runs, whatever its driver needs.
REQUIREMENTS = ("msgspec>=" + ".".join(map(str, MSGSPEC)),)
#: What `model-compose install` made has this file; who runs there holds a lock on it.
RECORD = "model-compose-lock.json"

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
_NAME = "model_compose"


def trouble() -> "tuple[str, str] | None":
    """Why no worker can run here, and what to do about it."""
    if sys.version_info < OLDEST or sys.implementation.name != "cpython":
        this = "it is {} {}.{}.{}".format(sys.implementation.name, *sys.version_info[:3])
        oldest = "CPython " + ".".join(map(str, OLDEST)) + " or newer"
        return this + ", and a worker needs " + oldest, "name another interpreter"
    found = _msgspec()
    if found is None or _numbers(found) < MSGSPEC:
        what = "it has no msgspec" if found is None else "it has msgspec " + found
        return what + ", which a worker needs", "install `" + REQUIREMENTS[0] + "` there"
    return None


def _msgspec() -> "str | None":
    try:
        import msgspec
    except ImportError:
        return None
    return msgspec.__version__


def _numbers(version: str) -> "tuple[int, ...]":
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def missing(modules: "list[str]") -> "list[str]":
    """Those of these modules that cannot be imported here; none of them is."""
    lacking = []
    for name in modules:
        try:
            found = importlib.util.find_spec(name) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            lacking.append(name)
    return lacking


def look(modules: "list[str]") -> "dict[str, object]":
    """What this Python is."""
    why = trouble()
    return {
        "version": ".".join(map(str, sys.version_info[:3])),
        "trouble": why and why[0],
        "hint": why and why[1],
        "missing": missing(modules),
    }


def refuse(sock: socket.socket, message: str, hint: str) -> None:
    """Send the `LoadFailed` of `messages.py`, without msgspec, and wait for the end."""
    error = {"code": "driver_missing", "message": message, "hint": hint}
    body = b"\x92" + _packed("load_failed") + bytes([0x80 | len(error)])
    body += b"".join(_packed(text) for pair in error.items() for text in pair)
    sock.sendall(struct.pack("<I", len(body)) + body)
    while sock.recv(1 << 16):
        pass


def _packed(text: str) -> bytes:
    data = text.encode()
    return b"\xdb" + struct.pack(">I", len(data)) + data


def make_known() -> None:
    """Have `import model_compose` find this package, and no other of that name."""
    spec = importlib.machinery.ModuleSpec(_NAME, None, is_package=True)
    spec.submodule_search_locations = [os.path.dirname(_HERE)]  # noqa: PTH120
    sys.modules[_NAME] = importlib.util.module_from_spec(spec)


def hold(prefix: str) -> "object | None":
    """Have nobody remove the environment that this Python lives in, until this process ends."""
    import fcntl

    try:
        file = open(os.path.join(prefix, RECORD))  # noqa: PTH118, PTH123, SIM115
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError:
        return None  # an environment that somebody else made, or a file system without locks
    return file


def serve() -> None:
    """Be the worker."""
    if sys.path and sys.path[0] == _HERE:
        # As `python -m` has it. The names of the files beside this one are not for others to find.
        sys.path[0] = os.getcwd()  # noqa: PTH109
    why = trouble()
    if why is not None:
        refuse(socket.socket(fileno=int(sys.argv[1])), sys.executable + ": " + why[0], why[1])
        return
    held = hold(sys.prefix)
    from model_compose.runtime.worker import main

    main()
    del held


if __name__ in ("__main__", "__mp_main__"):
    # The processes that an engine spawns run this file as `__mp_main__`, and unpickle classes of ours.
    make_known()
if __name__ == "__main__":
    if sys.argv[1] == "--look":
        sys.stdout.write("\n" + json.dumps(look(sys.argv[2:])) + "\n")
    else:
        serve()
