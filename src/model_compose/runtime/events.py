"""Which events does the scheduler take, and which effects does it ask for?"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from model_compose.drivers.contract import DeviceMemory
from model_compose.errors import ModelComposeError

# Events


class Submit(msgspec.Struct, frozen=True):
    """A request for a model. `bounded` ones are refused when the queue is full."""

    call: int
    model: str
    bounded: bool = False


class Cancel(msgspec.Struct, frozen=True):
    """The caller went away. Its slot is free when the worker says `Ended`."""

    call: int


class Began(msgspec.Struct, frozen=True):
    """A call has given its first output, so it cannot be run again."""

    call: int


class Ended(msgspec.Struct, frozen=True):
    """The worker is done with a call, well or not."""

    call: int


class Loaded(msgspec.Struct, frozen=True):
    """A model answers; `size` is what was measured of it, and `devices` the GPUs that it is on.

    They are empty if its worker can use none, and None if nobody knows.
    """

    model: str
    slots: int
    size: Mapping[str, int]
    devices: Mapping[str, DeviceMemory] | None = None


class Measured(msgspec.Struct, frozen=True):
    """A loaded model was measured again, in these pools, and the GPUs that it is on."""

    model: str
    size: Mapping[str, int]
    devices: Mapping[str, DeviceMemory] | None = None


class LoadFailed(msgspec.Struct, frozen=True):
    """A model cannot be loaded, and trying again would not help."""

    model: str
    error: ModelComposeError


class Exited(msgspec.Struct, frozen=True):
    """The worker of a model is gone: asked to (`error` is None), or not."""

    model: str
    error: ModelComposeError | None = None


class Fetched(msgspec.Struct, frozen=True):
    """The weights of a model are on disk; `size` is what it will probably take."""

    model: str
    size: Mapping[str, int]


class Want(msgspec.Struct, frozen=True):
    """Load a model without a request: `preload`, or somebody restarts it."""

    model: str


class Release(msgspec.Struct, frozen=True):
    """Unload a model when the calls that run have ended. `stay`: and let no request bring it back."""

    model: str
    stay: bool = False


class Wake(msgspec.Struct, frozen=True):
    """The time of a `WakeAt` has come."""


Event = (
    Submit
    | Cancel
    | Began
    | Ended
    | Loaded
    | Measured
    | LoadFailed
    | Exited
    | Fetched
    | Want
    | Release
    | Wake
)


# Effects


class Fetch(msgspec.Struct, frozen=True):
    """Get the weights of a model; answer with `Fetched`, `LoadFailed` or `Exited`."""

    model: str


class Load(msgspec.Struct, frozen=True):
    """Start a worker for a model; answer with `Loaded`, `LoadFailed` or `Exited`."""

    model: str


class Unload(msgspec.Struct, frozen=True):
    """End a worker; answer with `Exited`."""

    model: str


class Serve(msgspec.Struct, frozen=True):
    """Send a call to its model's worker; answer with `Ended`."""

    call: int
    model: str
    alone: bool = False


class Withdraw(msgspec.Struct, frozen=True):
    """Tell the worker that nobody waits for this call."""

    call: int
    model: str


class Fail(msgspec.Struct, frozen=True):
    """A call ends with an error."""

    call: int
    error: ModelComposeError


class WakeAt(msgspec.Struct, frozen=True):
    """Send `Wake` at this time, if not earlier."""

    at: float


Effect = Fetch | Load | Unload | Serve | Withdraw | Fail | WakeAt
