"""What can `driver: shout` do? The check of a file reads this, so nothing heavy is imported here."""

from __future__ import annotations

from typing import Annotated

import msgspec

from model_compose.config.spec import DriverSpec, TaskDriver, doc


class ShoutOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the engine, below `options` of a component."""

    exclamation_marks: Annotated[int, doc("how many stand at the end", ge=0)] = 1


SPEC = DriverSpec(
    name="shout",
    summary="Repeats the prompt in capital letters.",
    options=ShoutOptions,
    tasks={"text-generation": TaskDriver("shout_driver.engine:Shouter", {"seed": "nothing here is random"})},
    needs_model=False,
    refuses={"warmup": "there is nothing to warm up"},
)
