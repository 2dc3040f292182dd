"""What goes wrong with an object store, as an OSError in words: what, where, and what to do.

obstore tells what happened in a text with a technical part, out of which the facts are taken here.
Of that text nothing is repeated but names of errors, hosts, regions and numbers: no queries, no
headers, no answers, so that no credentials can be among it.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from vocprep.errors import UsageError
from vocprep.validation import printable

if TYPE_CHECKING:
    from vocprep.storage.store import StorePath

CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Environment variables that most users set, by the scheme."""
_PUBLIC: Final = {"s3": "AWS_SKIP_SIGNATURE", "gs": "GOOGLE_SKIP_SIGNATURE"}
_ADDRESS: Final = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_ENDPOINT"}
_OF_CREDENTIALS: Final = re.compile(
    r"//(169\.254\.\d+\.\d+|metadata\.google\.internal)[:/]"
    r"|/latest/(api/token|meta-data/)|/computeMetadata/|/metadata/identity/"
)
"""In the addresses where machines of the clouds find credentials, which others try at last."""
_URL: Final = re.compile(r"Error performing [A-Z]+ (\S+) in ")
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")
_REGION: Final = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_SETTINGS: Final = {
    "Account must be specified": "no account in the environment; set AZURE_STORAGE_ACCOUNT_NAME",
    "Invalid Access Key": "AZURE_STORAGE_ACCOUNT_KEY is no key of an account; set it anew",
    "Unable to open service account": "GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SERVICE_ACCOUNT, "
    "names a file that cannot be opened; set it anew",
    "Unable to decode service account": "GOOGLE_APPLICATION_CREDENTIALS, or "
    "GOOGLE_SERVICE_ACCOUNT, holds no credentials; set it anew",
}
"""What is wrong with settings, by what is in obstore's text."""
_WRONG_KEYS: Final = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed")
_EXPIRED: Final = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound")
_OTHER_REGION: Final = (
    *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
    *("PermanentRedirect", "TemporaryRedirect"),
)


_REPLACED: Final = "the object was replaced while it was read; try again"
_NO_ANSWER: Final = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (
            r"InvalidCertificate\((?:\s|Other\(|OtherError\()*(\w+)",
            "the certificate of {host} is not accepted ({found}); have SSL_CERT_FILE "
            "name a file with the certificates of its issuer",
        ),
        (r"InvalidContentType", "{host} does not answer by TLS; write http:// in {address}"),
        (r"dns error", "the host {host} is not known; check {address} and the network"),
        (
            r'Os \{\s*code: \d+,\s*kind: \w+,\s*message: "([\w ]{1,80})"',
            "{host} cannot be reached: {found}; check {address} and the network",
        ),
        (
            r"TimedOut|kind: Timeout",
            "{host} does not answer in time; check {address} and the network",
        ),
        (r"Precondition", _REPLACED),
        (r"Header|Parse\(", "{host} does not answer as an object store does; check {address}"),
        (
            r"IncompleteMessage|kind: Interrupted|kind: Request",
            "{host} breaks connections; check {address} and the network",
        ),
        (r"", "a request to {host} failed; check {address} and the network"),
    )
)
"""Why there is no answer, by what is in obstore's text; the first that fits."""


class StoreError(OSError):
    """An object store that does not answer, or not as expected."""


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """What obstore's text tells of a request."""

    host: str
    """With its port; the scheme's name where none is told."""
    url: str
    """Empty where none is told; never shown."""
    status: int | None
    """Of the answer; None without one."""
    code: str
    """Of the error in the answer, empty without one."""
    text: str
    """All of it, never shown."""

    @classmethod
    def of(cls, text: str, scheme: str) -> Self:
        found, status, code = _URL.search(text), _STATUS.search(text), _CODE.search(text)
        url = found[1] if found else ""
        host = urlsplit(url).netloc.rpartition("@")[2]
        return cls(
            host=printable(host, 200) or f"the store of {scheme}://",
            url=url,
            status=int(status[1]) if status else None,
            code=code[1] if code else "",
            text=text,
        )

    @property
    def is_passing(self) -> bool:
        """Whether the answer is that of a store which is busy or broken for now."""
        return self.status is not None and (self.status >= 500 or self.status == 429)

    @property
    def answer(self) -> str:
        """The status and the name of the error."""
        return " ".join(filter(None, (str(self.status or ""), self.code)))


def as_os_error(error: BaseException, path: StorePath) -> OSError:
    """Return the OSError about a path that one of obstore's errors means."""
    facts = _Facts.of(str(error), path.scheme)
    kind, number, words = _what(facts, path)
    return kind(number, words, str(path))


def _what(facts: _Facts, path: StorePath) -> tuple[type[OSError], int, str]:
    """Return the kind of an error, its number and its words."""
    bucket = f"{path.scheme}://{path.bucket}"
    if facts.code in _NO_BUCKET:
        words = f"there is no bucket {bucket} at {facts.host}; check its name"
        return StoreError, errno.ENOENT, f"{words} and {_ADDRESS[path.scheme]}"
    if _OF_CREDENTIALS.search(facts.url):
        return PermissionError, errno.EACCES, _no_credentials(path.scheme)
    if facts.status == 404:
        return FileNotFoundError, errno.ENOENT, "no such object"
    if facts.code in _OTHER_REGION or "BareRedirect" in facts.text:
        return StoreError, errno.EREMOTE, _other_region(facts, bucket)
    if facts.status in (401, 403):
        return PermissionError, errno.EACCES, _refused(facts, path.scheme)
    return StoreError, _number(facts), _failed(facts, path.scheme)


def as_usage_error(error: Exception, path: StorePath) -> UsageError:
    """Return the error of settings, of the environment, that obstore does not take."""
    text, names = str(error), CREDENTIALS[path.scheme]
    for found, words in _SETTINGS.items():
        if found in text:
            return UsageError(f"{path}: {words}")
    return UsageError(
        f"{path}: expected settings in the environment that fit together, found others; check "
        f"{names}, {_ADDRESS[path.scheme]} and the other variables of {names.partition('_')[0]}_"
    )


def _number(facts: _Facts) -> int:
    """Return EIO for what may pass, so that a request may be made again, EPROTO for the rest.

    ERANGE is for a range beyond the end of an object.
    """
    if facts.status == 416:
        return errno.ERANGE
    if facts.status is None:
        stays = r"InvalidCertificate|InvalidContentType|Precondition|Header|Parse\("
        return errno.EPROTO if re.search(stays, facts.text) else errno.EIO
    return errno.EIO if facts.is_passing else errno.EPROTO


def _no_credentials(scheme: str) -> str:
    public = f", or {_PUBLIC[scheme]}=true for a public bucket" if scheme in _PUBLIC else ""
    return f"no credentials in the environment; set {CREDENTIALS[scheme]}{public}"


def _refused(facts: _Facts, scheme: str) -> str:
    names = CREDENTIALS[scheme]
    if facts.code in _WRONG_KEYS:
        return f"{facts.host} refuses the credentials ({facts.code}); check {names}"
    if facts.code in _EXPIRED:
        return f"the credentials have expired ({facts.code}); renew them"
    if facts.code == "RequestTimeTooSkewed":
        return f"this machine's clock differs from that of {facts.host}; set the clock"
    return (
        f"{facts.host} does not allow this ({facts.answer}); check {names}, and what they may do "
        "with the bucket"
    )


def _other_region(facts: _Facts, bucket: str) -> str:
    region = _REGION.search(facts.text)
    found = f"the region {region[1]}" if region else "another region"
    value = region[1] if region else "the bucket's region"
    return f"{bucket} is in {found}, not in the one that is set; set AWS_REGION to {value}"


def _failed(facts: _Facts, scheme: str) -> str:
    """Return why a request failed, or got no answer."""
    if facts.status == 412:
        return _REPLACED
    if facts.status is not None:
        again = "; try again later" if facts.is_passing else ""
        return f"{facts.host} answers {facts.answer}{again}"
    for pattern, words in _NO_ANSWER:
        if match := pattern.search(facts.text):
            found = match[1] if pattern.groups else ""
            return words.format(host=facts.host, found=found, address=_ADDRESS[scheme])
    raise AssertionError  # the last pattern fits all
