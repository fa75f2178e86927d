"""How do commands talk to the running service?"""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import msgspec

from model_compose.cli.state import StateFolder
from model_compose.errors import ErrorInfo, ModelComposeError, NotFound, ServiceError, did_you_mean, revive
from model_compose.runtime.pool import ComponentStatus

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.1


class _Problem(msgspec.Struct):
    """The body of an answer that is an error."""

    detail: str = ""
    type: str = ""
    hint: str | None = None


class Client:
    """The service of a state folder. Raises ServiceError when it is not there."""

    def __init__(self, state: StateFolder) -> None:
        self._state = state
        self.service = state.running()

    def components(self) -> list[ComponentStatus]:
        """All components, in the order of the file."""
        return msgspec.json.decode(self._ask("GET", "/components"), type=list[ComponentStatus])

    def component(self, name: str) -> ComponentStatus:
        """One component. Raises NotFound."""
        components = self.components()
        for status in components:
            if status.name == name:
                return status
        names = [status.name for status in components]
        raise NotFound(f"there is no component `{name}`", hint=did_you_mean(name, names))

    def restart(self, name: str) -> None:
        """Load a component anew; -> at once. Raises NotFound."""
        self._ask("POST", f"/components/{name}/restart")

    def stop(self, name: str) -> None:
        """Unload a component when its calls have ended; -> at once. Raises NotFound."""
        self._ask("POST", f"/components/{name}/stop")

    def wait(self, name: str, until: Callable[[ComponentStatus], bool]) -> ComponentStatus:
        """The component when it is as it should be."""
        while not until(status := self.component(name)):
            time.sleep(_POLL_S)
        return status

    def _ask(self, method: str, path: str) -> bytes:
        url = urlsplit(self.service.api_url)
        connection = _connection(url.hostname or "", url.port, self.service.certificate)
        headers = {"Authorization": f"Bearer {self._state.token()}"}
        try:
            connection.request(method, url.path + path, headers=headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                f"the service at {self.service.url} does not answer: {error}",
                hint="`model-compose logs` shows what happened",
            ) from error
        finally:
            connection.close()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise _error(answer.status, body)
        return body


def _connection(host: str, port: int | None, certificate: str | None) -> http.client.HTTPConnection:
    """A connection; over TLS only to who has the certificate that the state folder names."""
    if certificate is None:
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False  # it is made out for the name that others use
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=context)


def _error(status: int, body: bytes) -> ModelComposeError:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        return ServiceError(f"the service answers {status}")
    return revive(ErrorInfo(problem.type, problem.detail, problem.hint))
