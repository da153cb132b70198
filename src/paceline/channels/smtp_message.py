"""From a message's fields to an e-mail on the wire: what is refused, who receives it, and the MIME bytes."""

import base64
import binascii
import email.policy
import email.utils
import re
from collections.abc import Iterable, Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from functools import lru_cache
from typing import Any, Final

import msgspec
from email_validator import EmailNotValidError, validate_email

from paceline.channels.addresses import LONGEST_URL, check_url
from paceline.channels.base import Outgoing
from paceline.channels.texts import body_problem, line_problem
from paceline.model.errors import Problem

MOST_RECIPIENTS: Final = 100
"""To, Cc and Bcc together: what every server has to take (RFC 5321, section 4.5.3.1.8)."""

LARGEST_ATTACHMENTS: Final = 20 * 1024 * 1024
"""All attachments of a message together, in bytes before base64."""

LONGEST_SUBJECT: Final = 900
LONGEST_BODY: Final = 5_000_000
_MOST_HEADERS: Final = 50
_MOST_ATTACHMENTS: Final = 50
_LONGEST_HEADER: Final = 900  # with its name below the 998 of RFC 5322, section 2.1.1

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN = re.compile(
    rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.)+"
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])"
)
_NAMED = re.compile(r"\s*(?P<name>[^<>]*?)\s*<(?P<address>[^<>\s]+)>\s*")
_ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?")
_HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,75}", re.ASCII)
_HEADERS = frozenset(
    [
        "auto-submitted",
        "comments",
        "feedback-id",
        "importance",
        "in-reply-to",
        "keywords",
        "list-archive",
        "list-help",
        "list-id",
        "list-owner",
        "list-post",
        "list-subscribe",
        "organization",
        "precedence",
        "priority",
        "references",
    ]
)
_TYPE = re.compile(
    r"(?!message/|multipart/)[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+_-]{0,100}", re.IGNORECASE | re.ASCII
)
_ATTACHMENT_FIELDS = frozenset({"filename", "content", "content_type"})
_LINE_END = re.compile(r"\r\n?|\n")
_WIRE_LINE_END = re.compile(rb"\r\n?|\n")
_DOT_LINE = re.compile(rb"(?m)^\.")
_HEADER_LINE = re.compile(rb"([A-Za-z0-9-]+):[ \r]?|[ \t]")

# 7bit: bodies become quoted-printable or base64 where they must, so that no server needs 8BITMIME.
_POLICY = email.policy.SMTP.clone(cte_type="7bit")
_POLICY_UTF8 = email.policy.SMTPUTF8.clone(cte_type="7bit")


class Mail(msgspec.Struct, frozen=True):
    """A mail ready for the wire.

    Attributes:
        data: header and body with CRLF, dots doubled, without the final dot.
        size: octets before the dots were doubled, as SIZE counts them (RFC 1870).
        utf8: True where the server has to know SMTPUTF8 (RFC 6531).
    """

    sender: str
    recipients: tuple[str, ...]
    message_id: str
    data: bytes
    size: int
    utf8: bool


def check_mail(to: tuple[str, ...], content: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the fields of a mail; quick where nothing is."""
    problems: list[Problem | None] = []
    if not to:
        problems.append(Problem("/to", "must name at least one recipient"))
    count = len(to)
    for index, address in enumerate(to):
        wrong = address_problem(address)
        if wrong is not None:
            problems.append(Problem(f"/to/{index}" if len(to) > 1 else "/to", wrong))
    for field in ("cc", "bcc"):
        value = content.get(field)
        if value is not None:
            found, number = _check_list(field, value)
            problems += found
            count += number
    if count > MOST_RECIPIENTS:
        problems.append(Problem("/to", f"must be at most {MOST_RECIPIENTS} recipients, with cc and bcc"))
    for field in ("from", "reply_to"):
        value = content.get(field)
        if value is not None:
            wrong = sender_problem(value)
            if wrong is not None:
                problems.append(Problem(f"/{field}", wrong))
    subject = content.get("subject")
    if subject is not None:
        problems.append(_header_problem("/subject", subject, LONGEST_SUBJECT))
    text, html = content.get("text"), content.get("html")
    if text is None and html is None:
        problems.append(Problem("/text", "must be given, or else html"))
    if text is not None:
        problems.append(body_problem("/text", text, LONGEST_BODY))
    if html is not None:
        problems.append(body_problem("/html", html, LONGEST_BODY))
    if content.get("headers") is not None:
        problems += _check_headers(content["headers"])
    if content.get("unsubscribe_url") is not None:
        problems.append(_check_unsubscribe(content["unsubscribe_url"]))
    if content.get("attachments") is not None:
        problems += _check_attachments(content["attachments"])
    return [problem for problem in problems if problem is not None]


def address_problem(address: object) -> str | None:
    """What is wrong with a bare e-mail address; None when it can be written to."""
    if not isinstance(address, str):
        return "must be text"
    if len(address) <= 254 and _PLAIN.fullmatch(address):
        return None
    if address.isascii() or len(address) > 254 or not address.isprintable():
        return "must be one e-mail address such as name@example.com"
    try:
        _on_wire(address)
    except EmailNotValidError:
        return "must be one e-mail address such as name@example.com"
    return None


def sender_problem(value: object) -> str | None:
    """What is wrong with an address that may bring a name: ``Ann Lee <ann@example.com>``."""
    if not isinstance(value, str):
        return "must be text"
    wrong = _header_problem("", value, 500)
    if wrong is not None:
        return wrong.problem
    named = _NAMED.fullmatch(value)
    return address_problem(named["address"] if named else value)


def _check_list(field: str, value: object) -> tuple[list[Problem], int]:
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, (list, tuple)):
        return [Problem(f"/{field}", "must be a list of e-mail addresses")], 0
    problems = []
    for index, address in enumerate(addresses):
        wrong = address_problem(address)
        if wrong is not None:
            problems.append(Problem(f"/{field}" if addresses is not value else f"/{field}/{index}", wrong))
    return problems, len(addresses)


def _header_problem(field: str, value: object, most: int) -> Problem | None:
    problem = line_problem(field, value, most)
    if problem is None and "=?" in str(value) and _ENCODED_WORD.search(str(value)):
        # The e-mail package would decode it, line feeds included, on the way out.
        return Problem(field, "must be plain text: encoded words (=?...?=) are made where they are needed")
    return problem


def _check_headers(headers: object) -> list[Problem]:
    if not isinstance(headers, Mapping) or len(headers) > _MOST_HEADERS:
        return [Problem("/headers", f"must be an object of at most {_MOST_HEADERS} headers")]
    problems = []
    for name, value in headers.items():
        field = f"/headers/{str(name)[:80].replace('~', '~0').replace('/', '~1')}"
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            problems.append(Problem(field, "must be named with letters, digits and hyphens"))
        elif name.lower() not in _HEADERS and not name.lower().startswith("x-"):
            problems.append(
                Problem(field, "may not be set: use X- names, or the field of the message for it")
            )
        else:
            problem = _header_problem(field, value, _LONGEST_HEADER)
            if problem is None and not (value.isascii() and value.strip()):
                problem = Problem(field, "must be ASCII and not empty")
            if problem is not None:
                problems.append(problem)
    return problems


def _check_unsubscribe(url: object) -> Problem | None:
    wrong = check_url(url)
    if wrong is None and not (str(url).startswith("https://") and str(url).isascii()):
        wrong = "must be an https URL in ASCII"  # RFC 8058, section 3.1
    if wrong is None and (
        len(str(url)) > min(_LONGEST_HEADER, LONGEST_URL) or re.search(r"[<>,\"]", str(url))
    ):
        wrong = f"must be at most {_LONGEST_HEADER} characters long, without < > , and quotes"
    return None if wrong is None else Problem("/unsubscribe_url", wrong)


def _check_attachments(attachments: object) -> list[Problem]:
    if not isinstance(attachments, (list, tuple)) or len(attachments) > _MOST_ATTACHMENTS:
        return [Problem("/attachments", f"must be a list of at most {_MOST_ATTACHMENTS} attachments")]
    problems: list[Problem | None] = []
    total = 0
    for index, attachment in enumerate(attachments):
        field = f"/attachments/{index}"
        if not isinstance(attachment, Mapping):
            problems.append(Problem(field, "must be an object with filename, content and content_type"))
            continue
        unknown = [str(key)[:80] for key in attachment if key not in _ATTACHMENT_FIELDS]
        problems += [
            Problem(f"{field}/{key}", "is not known: content is given as base64, never as a path")
            for key in unknown
        ]
        problems.append(_file_name_problem(f"{field}/filename", attachment.get("filename")))
        kind = attachment.get("content_type")
        if kind is not None and not (isinstance(kind, str) and _TYPE.fullmatch(kind)):
            problems.append(Problem(f"{field}/content_type", "must be a media type such as application/pdf"))
        content = attachment.get("content")
        try:
            if not isinstance(content, str) or not content:
                raise ValueError
            total += len(content) // 4 * 3
            if total <= LARGEST_ATTACHMENTS + 2:
                binascii.a2b_base64(content, strict_mode=True)
        except ValueError:
            problems.append(Problem(f"{field}/content", "must be base64, and not empty"))
    if total > LARGEST_ATTACHMENTS + 2:
        problems.append(
            Problem("/attachments", f"must be at most {LARGEST_ATTACHMENTS >> 20} MB in all, before base64")
        )
    return [problem for problem in problems if problem is not None]


def _file_name_problem(field: str, name: object) -> Problem | None:
    problem = _header_problem(field, name, 200)
    if problem is not None:
        return problem
    if not str(name).isprintable() or not str(name).strip(". ") or re.search(r"[/\\]", str(name)):
        return Problem(field, "must be a plain file name, without a path and without invisible characters")
    return None


@lru_cache(maxsize=4096)
def _on_wire(address: str) -> str:
    """`address` with its domain in ASCII; only its local part may be left in UTF-8."""
    if address.isascii():
        return address
    found = validate_email(address, check_deliverability=False, test_environment=True)
    return found.ascii_email or f"{found.local_part}@{found.ascii_domain}"


def _address(value: str) -> Address:
    named = _NAMED.fullmatch(value)
    # Not as addr_spec: that way Address refuses what SMTPUTF8 allows.
    user, _, domain = _on_wire(named["address"] if named else value).rpartition("@")
    return Address(named["name"].strip('" ') if named else "", user, domain)


def domain_of(sender: str) -> str:
    """The domain of an address that may bring a name, in ASCII."""
    return _address(sender).domain


def _listed(value: Any) -> Iterable[str]:
    return () if value is None else (value,) if isinstance(value, str) else value


def build_mail(message: Outgoing, default_from: str) -> Mail:
    """The mail of a message that passed `check_mail`: the same bytes for each try but for MIME boundaries.

    Raises:
        ValueError: a field makes a header that could be misread, or is no longer valid.
    """
    content = message.content
    sender = _address(content.get("from") or default_from)
    to = [_address(value) for value in message.to]
    cc = [_address(value) for value in _listed(content.get("cc"))]
    bcc = [_address(value) for value in _listed(content.get("bcc"))]
    reply_to = content.get("reply_to")
    everyone = [sender, *to, *cc, *bcc, *([_address(reply_to)] if reply_to else [])]
    utf8 = not all(address.addr_spec.isascii() for address in everyone)
    mail = EmailMessage(_POLICY_UTF8 if utf8 else _POLICY)
    mail["From"] = sender
    mail["To"] = to
    if cc:
        mail["Cc"] = cc
    if reply_to:
        mail["Reply-To"] = _address(reply_to)
    if content.get("subject"):
        mail["Subject"] = content["subject"]
    _fill(mail, content)

    message_id = f"<{message.id}@{sender.domain}>"
    own = _own_headers(message, message_id)
    data = _WIRE_LINE_END.sub(b"\r\n", own + mail.as_bytes())
    if not data.endswith(b"\r\n"):
        data += b"\r\n"
    _verify(
        data,
        {name.lower() for name in mail}
        | {line.partition(b":")[0].decode().lower() for line in own.splitlines()},
    )
    recipients = tuple(dict.fromkeys(address.addr_spec for address in (*to, *cc, *bcc)))
    return Mail(sender.addr_spec, recipients, message_id, _DOT_LINE.sub(b"..", data), len(data), utf8)


def _own_headers(message: Outgoing, message_id: str) -> bytes:
    """Headers of plain ASCII, written here because the e-mail package would break long ones into encoded words."""
    lines = [f"Message-ID: {message_id}", f"Date: {email.utils.formatdate(message.created_at // 1000)}"]
    url = message.content.get("unsubscribe_url")
    if url:
        lines += [f"List-Unsubscribe: <{url}>", "List-Unsubscribe-Post: List-Unsubscribe=One-Click"]
    lines += [f"{name}: {value}" for name, value in (message.content.get("headers") or {}).items()]
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _fill(mail: EmailMessage, content: Mapping[str, Any]) -> None:
    text, html = content.get("text"), content.get("html")
    if text is not None:
        mail.set_content(_LINE_END.sub("\n", text))
    if html is not None:
        clean = _LINE_END.sub("\n", html)
        if text is None:
            mail.set_content(clean, subtype="html")
        else:
            mail.add_alternative(clean, subtype="html")
    for attachment in content.get("attachments") or ():
        major, _, minor = (
            (attachment.get("content_type") or "application/octet-stream").lower().partition("/")
        )
        mail.add_attachment(
            base64.b64decode(attachment["content"], validate=True),
            maintype=major,
            subtype=minor,
            filename=attachment["filename"],
        )


def _verify(data: bytes, names: set[str]) -> None:
    """Look at what was made: no header may be there that nobody asked for. Raises ValueError."""
    for line in data[: data.index(b"\r\n\r\n")].split(b"\r\n"):
        match = _HEADER_LINE.match(line)
        if match is None or (match[1] is not None and match[1].decode().lower() not in names):
            raise ValueError("a field would add a header of its own")
