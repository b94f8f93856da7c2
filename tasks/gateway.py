"""The world outside of the shop: payment providers, a carrier, messengers.

Each is called with a key that is the same for every attempt, so that one that honours it acts once. None
is called within a transaction. Local implementations play what `tasks.rehearsal` tells them; e-mail is
spoken to a real server when `SMTP_HOST` is set (`SMTP_PORT`, 25 if unset; `SMTP_SENDER`).
"""

from __future__ import annotations

import os
import smtplib
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Protocol

from status.errors import ConfigError, TerminalError
from tasks.domain import Address, Provider
from tasks.once import derived_id
from tasks.rehearsal import Caller, ProviderDown, play

#: A mail server that needs longer than this for one answer is as good as down.
SMTP_TIMEOUT_S = 10


class PaymentProvider(Protocol):
    """Moves money in two moves, so that the first can be repeated or forgotten without harm."""

    def authorize(self, caller: Caller, order_id: str, amount: Decimal) -> str:
        """Hold `amount` and give the transaction's id; a hold that is not captured lapses by itself.

        Raises:
            TerminalError: Declined.
            ProviderDown: No answer.
        """
        ...

    def refund(self, caller: Caller, transaction_id: str, amount: Decimal) -> None:
        """Give captured money back.

        Raises:
            ProviderDown: No answer.
        """
        ...


class Carrier(Protocol):
    """Takes parcels."""

    def label(self, caller: Caller, slot_id: str, address: Address) -> str:
        """The tracking number of the parcel in this slot. A label that is not used costs nothing.

        Raises:
            TerminalError: The carrier does not take it.
            ProviderDown: No answer.
        """
        ...


class Messenger(Protocol):
    """Tells a customer something."""

    def send(self, caller: Caller, recipient: str, subject: str, body: str) -> bool:
        """Whether it was sent; False: it can't send by itself, leave it in the outbox.

        Raises:
            TerminalError: The recipient is refused.
            ProviderDown: No answer.
        """
        ...


@dataclass(frozen=True)
class LocalPayments:
    """Agrees to everything, unless told otherwise."""

    provider: Provider

    def authorize(self, caller: Caller, order_id: str, amount: Decimal) -> str:
        """See `PaymentProvider`."""
        del order_id, amount
        play(self.provider, caller)
        return derived_id(self.provider.value, caller.idempotency_key)

    def refund(self, caller: Caller, transaction_id: str, amount: Decimal) -> None:
        """See `PaymentProvider`."""
        del transaction_id, amount
        play(Provider.REFUNDS, caller)


@dataclass(frozen=True)
class LocalCarrier:
    """Takes every parcel, unless told otherwise."""

    def label(self, caller: Caller, slot_id: str, address: Address) -> str:
        """See `Carrier`."""
        del address
        play(Provider.CARRIER, caller)
        return derived_id("trk", slot_id).upper()


@dataclass(frozen=True)
class LocalMessenger:
    """Leaves everything in the outbox."""

    channel: Provider

    def send(self, caller: Caller, recipient: str, subject: str, body: str) -> bool:
        """See `Messenger`."""
        del recipient, subject, body
        play(self.channel, caller)
        return False


@dataclass(frozen=True)
class SmtpMessenger:
    """Speaks SMTP. The message id is derived from the step's key: a repeated mail is seen as such."""

    host: str
    port: int
    sender: str

    def send(self, caller: Caller, recipient: str, subject: str, body: str) -> bool:
        """See `Messenger`."""
        play(Provider.EMAIL, caller)
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self.sender, recipient, subject
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = f"<{derived_id('mail', caller.idempotency_key)}@{self.sender.partition('@')[2]}>"
        mail.set_content(body)
        try:
            with smtplib.SMTP(self.host, self.port, timeout=SMTP_TIMEOUT_S) as server:
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            code, said = error.recipients[recipient]
            raise _failure(code, said) from error
        except smtplib.SMTPResponseException as error:
            raise _failure(error.smtp_code, error.smtp_error) from error
        except OSError as error:  # all others of smtplib are OSErrors too
            raise ProviderDown(f"the mail server {self.host}:{self.port} did not answer: {error}") from error
        return True


def payments(provider: Provider) -> PaymentProvider:
    """The payment provider of that name."""
    return LocalPayments(provider)


def carrier() -> Carrier:
    """The carrier."""
    return LocalCarrier()


def messenger(channel: Provider) -> Messenger:
    """Who sends over this channel.

    Raises:
        ConfigError: `SMTP_PORT` is not a port.
    """
    host = os.environ.get("SMTP_HOST", "")
    if channel is not Provider.EMAIL or not host:
        return LocalMessenger(channel)
    port = os.environ.get("SMTP_PORT") or "25"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"SMTP_PORT={port!r} is not a port: write a number from 1 to 65535")
    return SmtpMessenger(host, int(port), os.environ.get("SMTP_SENDER") or "orders@shop.invalid")


def _failure(code: int, said: bytes | str) -> Exception:
    words = said.decode(errors="replace") if isinstance(said, bytes) else said
    # RFC 5321: 5yz is for good, 4yz may be tried again.
    if code >= 500:
        return TerminalError(f"the mail server refused: {code} {words}", code=400)
    return ProviderDown(f"the mail server is busy: {code} {words}")
