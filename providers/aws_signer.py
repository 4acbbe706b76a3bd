"""Signs requests to Amazon: SigV4 with whatever credentials botocore's chain finds, or a bearer key.

botocore is imported, searches and refreshes in a thread: it reads files, runs programs and asks metadata services, and
a slow one of those must not hold up anybody else. All requests that wait for credentials wait for the same search. What
is still good is used while it is renewed behind the scenes.
"""

import asyncio
import contextlib
import importlib
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, cast

from providers.base import WireRequest
from providers.errors import CredentialsError

_T = TypeVar("_T")
SERVICE: Final = "bedrock"
"""The name in the signature, which is not that of the host (bedrock-runtime)."""
SEARCH_TIMEOUT_S: Final = 15.0
"""How long a request waits for credentials. The search itself goes on, for the requests after it."""
SEARCH_AGAIN_AFTER_S: Final = 30.0
"""A search that found nothing is not repeated for so long."""
LOOK_AGAIN_AFTER_S: Final = 300.0
"""Credentials that do not say when they end are looked up again after so long."""
RENEW_BEFORE_S: Final = 10 * 60
"""Credentials that run out sooner than this are waited for anew, as botocore itself does."""
INLINE_BODY_MAX_BYTES: Final = 256 * 1024
"""A larger body is hashed in a thread."""


class AwsSigner:
    """Adds Amazon's credentials to requests of one region. Belongs to one event loop."""

    def __init__(self, region: str, *, profile: str | None = None, bearer_key: str | None = None) -> None:
        """Neither reads nor imports anything yet.

        Args:
            region: As in `us-east-1`.
            profile: Of the shared AWS files; None means what the environment says.
            bearer_key: A Bedrock API key, used instead of a signature.
        """
        self._region = region
        self._profile = profile
        self._bearer = None if bearer_key is None else {"authorization": f"Bearer {bearer_key}"}
        self._source: Any = None
        self._frozen: Any = None
        self._work: asyncio.Task[None] | None = None
        self._failure: str | None = None
        self._failed_s = 0.0
        self._found_s = 0.0
        self._warm = False

    async def sign(self, request: WireRequest, *, now_unix_s: float) -> WireRequest:
        """The request as it may go out.

        Raises:
            CredentialsError: There are no credentials, or they could not be renewed.
        """
        if self._bearer is not None:
            if not self._warm:
                await asyncio.to_thread(_import_botocore)  # the answer's decoder needs it, and must not wait for it
                self._warm = True
            return _with_headers(request, self._bearer)
        frozen = await self._credentials()
        if len(request.body) > INLINE_BODY_MAX_BYTES:
            headers = await asyncio.to_thread(_signature, request, frozen, self._region, now_unix_s)
        else:
            headers = _signature(request, frozen, self._region, now_unix_s)
        return _with_headers(request, headers)

    async def has_credentials(self) -> bool:
        """Whether there is anything to sign with. Searches where that was not known."""
        if self._bearer is not None:
            return True
        try:
            await self._credentials()
        except CredentialsError:
            return False
        return True

    async def _credentials(self) -> Any:
        """Credentials that are good for a while.

        Raises:
            CredentialsError: There are none.
        """
        source = self._source
        renewable = source is not None and hasattr(source, "refresh_needed")
        if source is not None and self._frozen is not None:
            if not renewable:
                self._look_again()
                return self._frozen
            if not source.refresh_needed():
                self._frozen = source.get_frozen_credentials()
                return self._frozen
            if not source.refresh_needed(RENEW_BEFORE_S):
                if not self._failed_lately():
                    self._start_work()  # still good for minutes: this request does not wait
                return self._frozen
        if self._failure is not None and self._failed_lately():
            raise CredentialsError(self._failure)
        work = self._start_work()
        try:
            async with asyncio.timeout(SEARCH_TIMEOUT_S):
                await asyncio.shield(work)
        except TimeoutError:
            self._failed(
                f"no AWS credentials within {SEARCH_TIMEOUT_S:g} s: the operator must act, see `mixgate check`"
            )
        if self._failure is not None:
            raise CredentialsError(self._failure)
        return self._frozen

    def _look_again(self) -> None:
        """Behind the scenes, now and then: keys in a file may have been exchanged, session tokens often are."""
        if _now_s() - self._found_s > LOOK_AGAIN_AFTER_S:
            self._found_s = _now_s()
            self._start_work(anew=True)

    def _start_work(self, *, anew: bool = False) -> asyncio.Task[None]:
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._search(None if anew else self._source))
        return self._work

    async def _search(self, source: Any) -> None:
        """Find or renew credentials in a thread; what went wrong is kept for those who ask in the next seconds."""
        try:
            source, frozen = await _in_a_thread_of_its_own(_find, self._profile, source)
        except Exception as error:  # noqa: BLE001 (every provider in the chain has errors of its own)
            self._failed(f"AWS credentials could not be had ({type(error).__name__}): the operator must act")
            return
        if frozen is not None:
            self._source, self._frozen, self._found_s, self._failure = source, frozen, _now_s(), None
        elif self._frozen is None:
            self._failed("botocore finds no AWS credentials: the operator must set them, see `mixgate check`")

    def _failed_lately(self) -> bool:
        return self._failure is not None and _now_s() - self._failed_s < SEARCH_AGAIN_AFTER_S

    def _failed(self, message: str) -> None:
        self._failure = message
        self._failed_s = _now_s()


async def _in_a_thread_of_its_own(work: Callable[[str | None, Any], _T], profile: str | None, source: Any) -> _T:
    """What `work` gives. Its thread takes no place from other work, and a program that hangs holds up no shutdown."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(cast("_T", result))

    def run() -> None:
        outcome: tuple[_T | None, Exception | None]
        try:
            outcome = (work(profile, source), None)
        except Exception as error:  # noqa: BLE001 (handed to the one who waits)
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="aws-credentials", daemon=True).start()
    return await done


def find_credentials(profile: str | None) -> str | None:
    """Where botocore's chain finds credentials (`env`, `shared-credentials-file`, ...), or None. Blocks.

    Args:
        profile: Of the shared AWS files; None means what the environment says.
    """
    try:
        source, _ = _find(profile, None)
    except Exception:  # noqa: BLE001 (every provider in the chain has errors of its own; none means none)
        return None
    return None if source is None else str(getattr(source, "method", "found"))


def _find(profile: str | None, source: Any) -> tuple[Any, Any]:
    """The chain's credentials and their present values. Blocks: files, programs, the network."""
    _import_botocore()
    if source is None:
        session: Any = importlib.import_module("botocore.session")
        source = session.Session(profile=profile).get_credentials()
    return source, None if source is None else source.get_frozen_credentials()


def _import_botocore() -> None:
    """All of botocore that signing and reading a stream need. Half a second the first time, so never at start-up."""
    for name in ("botocore.session", "botocore.auth", "botocore.awsrequest", "botocore.eventstream"):
        importlib.import_module(name)


def _signature(request: WireRequest, frozen: Any, region: str, now_unix_s: float) -> dict[str, str]:
    """The headers that SigV4 adds."""
    auth: Any = importlib.import_module("botocore.auth")
    awsrequest: Any = importlib.import_module("botocore.awsrequest")
    aws = awsrequest.AWSRequest(
        method=request.method, url=request.url, data=request.body, headers=dict(request.headers)
    )
    signer = auth.SigV4Auth(frozen, SERVICE, region)
    # The steps of botocore's add_auth, at our clock's time instead of its own.
    aws.context["timestamp"] = datetime.fromtimestamp(now_unix_s, UTC).strftime(auth.SIGV4_TIMESTAMP)
    signer._modify_request_before_signing(aws)  # noqa: SLF001 (add_auth reads the clock by itself)
    text = signer.string_to_sign(aws, signer.canonical_request(aws))
    signer._inject_signature_to_request(aws, signer.signature(text, aws))  # noqa: SLF001 (as above)
    added = ("x-amz-date", "x-amz-security-token", "authorization")
    return {name: aws.headers[name] for name in added if name in aws.headers}


def _with_headers(request: WireRequest, headers: Mapping[str, str]) -> WireRequest:
    return request.under({**request.headers, **headers})


def _now_s() -> float:
    return asyncio.get_running_loop().time()
