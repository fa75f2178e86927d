"""What may a request to a class of the user's own say beside the fields of its task?

A map `params`, which only the class can read, because nothing but its worker imports it: the service
passes the map on, and the worker makes a `Params` of the class of it.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Final

import msgspec

from model_compose.config.convert import converted
from model_compose.errors import InvalidInput, did_you_mean

#: The field of a request, and the key of an action.
PARAMS: Final = "params"


@functools.cache
def with_params(request: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """The requests of a task with `params: dict[str, Any]` besides."""
    about = msgspec.Meta(description="parameters of the class's own, as its `Params` has them")
    field: Any = (PARAMS, Annotated[dict[str, Any], about], msgspec.field(default_factory=dict))
    return msgspec.defstruct(
        f"{request.__name__}WithParams",
        [field],
        bases=(request,),
        module=__name__,
        namespace={"__doc__": request.__doc__},
        kw_only=True,
    )


def params_of(request: Any, wanted: type[msgspec.Struct] | None) -> Any:
    """The `params` of a request as the class wants them; null is as good as not given.

    wanted  None of a class that takes none
    Raises InvalidInput that names the parameter.
    """
    given = {name: value for name, value in request.params.items() if value is not None}
    known = [] if wanted is None else [field.encode_name for field in msgspec.structs.fields(wanted)]
    for name in given:
        if name not in known:
            raise _unknown(name, known, request)
    return given if wanted is None else converted(given, wanted, PARAMS)


def _unknown(name: str, known: list[str], request: Any) -> InvalidInput:
    if name in request.__struct_encode_fields__:
        hint = f"`{name}` is a parameter of the task: it stands beside `{PARAMS}`"
    else:
        hint = did_you_mean(name, known) or "the class has no `Params`, so it takes none"
    return InvalidInput(f"there is no parameter `{PARAMS}.{name}`", field=f"{PARAMS}.{name}", hint=hint)
