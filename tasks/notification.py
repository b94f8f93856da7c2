"""Telling the customer. What can't be sent from here waits in the outbox."""

from __future__ import annotations

from sqlalchemy.orm import Session

from canvas import Retry, current_step, step
from status.errors import TerminalError
from tasks import gateway
from tasks.domain import Fulfillment, Provider
from tasks.models import NotificationRow
from tasks.once import add, derived_id, earlier, once

_RETRY = Retry(max_attempts=2, first_s=0.2)


@step(name="notification.send_email", queue="notification", retry=_RETRY)
def send_email(to: str | None, subject: str, body: str) -> str:
    """Send a mail; gives `sent`, `outbox`, or `no address`.

    A crash after the server took the mail and before that is written sends it again, with the same id.

    Raises:
        TerminalError: The address is not one, or is refused (code 400).
        ProviderDown: The server did not answer.
    """
    if to and ("@" not in to or any(character.isspace() for character in to)):
        raise TerminalError(f"{to!r} is not an e-mail address", code=400)
    return _send(Provider.EMAIL, to, subject, body)


@step(name="notification.send_sms", queue="notification", retry=_RETRY)
def send_sms(to: str | None, text: str) -> str:
    """Send a text message; gives `sent`, `outbox`, or `no address`."""
    return _send(Provider.SMS, to, "", text)


@step(name="notification.send_push", queue="notification", retry=_RETRY)
def send_push(customer_id: str, title: str, body: str) -> str:
    """Send to the customer's app; gives `sent` or `outbox`."""
    return _send(Provider.PUSH, customer_id, title, body)


def format_email(fulfillment: Fulfillment) -> str:
    """The text of the confirmation."""
    return (
        f"Thank you for your order {fulfillment.invoice.order_id}.\n"
        f"{fulfillment.picked.units} units are on their way, tracking number "
        f"{fulfillment.label.tracking_number}.\n"
        f"Invoice {fulfillment.invoice.invoice_id}: {fulfillment.invoice.total}\n"
    )


def _send(channel: Provider, recipient: str | None, subject: str, body: str) -> str:
    if not recipient:
        return "no address"
    done = earlier(str)
    if done is not None:
        return done
    sent = gateway.messenger(channel).send(current_step(), recipient, subject, body)
    return once(
        str,
        lambda session, key: note(
            session, key, channel=channel, recipient=recipient, subject=subject, body=body, sent=sent
        ),
    )


def note(session: Session, key: str, *, channel: Provider, recipient: str, subject: str, body: str, sent: bool) -> str:
    """Write the message to the outbox.

    Raises:
        TerminalError: It is there already (code 409).
    """
    row = NotificationRow(
        notification_id=derived_id("msg", key),
        channel=channel.value,
        recipient=recipient,
        subject=subject,
        body=body,
        sent=sent,
        key=key,
    )
    add(session, row, already=f"the {channel} to {recipient} is noted already")
    return "sent" if sent else "outbox"
