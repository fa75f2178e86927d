"""What does trouble with the Hugging Face hub mean for the user, and what can be done about it?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from model_compose.errors import (
    AccessDenied,
    Corrupt,
    SourceError,
    SourceNotFound,
    SourceOffline,
    did_you_mean,
)
from model_compose.sources.spec import HubSource

_SET_A_TOKEN = "set `token` in the file or `HF_TOKEN` in the environment"  # noqa: S105


@contextlib.contextmanager
def explained(
    source: HubSource, *, hub: str, with_token: bool, revisions: Callable[[], list[str]]
) -> Iterator[None]:
    """Turn the errors of the hub's library into ours.

    hub         address of the hub, to be shown
    with_token  whether a token is sent
    revisions   asks the hub for its branches and tags, to find the one that was meant
    """
    import httpx2
    from huggingface_hub import errors

    def ours(error: BaseException) -> SourceError:
        match error:
            case errors.GatedRepoError():
                return _gated(source, hub, with_token)
            case errors.RevisionNotFoundError():
                return _no_revision(source, revisions())
            case errors.RemoteEntryNotFoundError():
                return SourceNotFound(f"`{source}`: the hub names a file that it does not have")
            case errors.HfHubHTTPError():
                return _refused(source, hub, with_token, error.response.status_code)
            case errors.OfflineModeIsEnabled():
                return not_in_cache(source, "`HF_HUB_OFFLINE` is set")
        return SourceOffline(
            f"`{hub}` cannot be reached for `{source}`: {error or type(error).__name__}",
            hint="check the network; `HTTPS_PROXY` names a proxy, `HF_ENDPOINT` a mirror",
        )

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        # The library looked into its cache because of another error: that one is of interest.
        raise ours(error.__cause__ or error) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ours(error) from error
    except (ValueError, KeyError) as error:
        raise SourceError(f"`{hub}` does not answer as a hub does: {error}") from error
    except OSError as error:
        if "Consistency check failed" in str(error):
            raise Corrupt(f"`{source}`: a file has not the size that the hub announces") from error
        raise


def not_in_cache(source: HubSource, reason: str) -> SourceOffline:
    """The error for a source that is not in the cache while the network may not be used."""
    return SourceOffline(
        f"`{source}` is not in the cache, and {reason}",
        hint="fetch it once with a network: `model-compose pull`",
    )


def _gated(source: HubSource, hub: str, with_token: bool) -> AccessDenied:
    token = "use a token of the account that accepted them" if with_token else _SET_A_TOKEN
    return AccessDenied(
        f"`{source.repository}` is gated: its owner wants you to agree to terms first",
        hint=f"accept the terms at {hub}/{source.repository}, then {token}",
    )


def _no_revision(source: HubSource, known: list[str]) -> SourceNotFound:
    wanted = source.revision or "main"
    return SourceNotFound(
        f"`{source.repository}` has no revision `{wanted}`", hint=did_you_mean(wanted, known)
    )


def _refused(source: HubSource, hub: str, with_token: bool, status: int) -> SourceError:
    repository = source.repository
    match status:
        case 401 if with_token:
            return AccessDenied(
                f"`{hub}` does not accept the token that was sent for `{repository}`",
                hint="check that the token is valid: `hf auth whoami`",
            )
        case 401:
            # The hub does not tell strangers which of the two it is.
            return AccessDenied(
                f"`{repository}` is private, or does not exist on `{hub}`",
                hint=f"check the name; if it is private, {_SET_A_TOKEN}",
            )
        case 403:
            allow = (
                "give the token read access to it, in your settings on the hub"
                if with_token
                else _SET_A_TOKEN
            )
            return AccessDenied(f"`{hub}` does not let us read `{repository}`", hint=allow)
        case 404:
            return SourceNotFound(
                f"there is no repository `{repository}` on `{hub}`",
                hint="check the name, which is `owner/name`; a private one shows itself only to its token",
            )
        case 429:
            return SourceError(
                f"`{hub}` wants to be asked less often", hint=f"wait a few minutes, or {_SET_A_TOKEN}"
            )
        case _ if status >= 500:
            return SourceOffline(f"`{hub}` is out of order: it answers {status}", hint="try again later")
    return SourceError(f"`{hub}` answers {status} for `{repository}`")
