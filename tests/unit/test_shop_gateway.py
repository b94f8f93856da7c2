"""Providers as they were told to behave, and mail as it is spoken to a server."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from decimal import Decimal
from email import message_from_string

import pytest

from canvas.context import CurrentStep
from shop import HOME, ITEMS, Shop
from status.errors import ConfigError, TerminalError
from tasks import inventory, notification, payment, rehearsal, shipping, warehouse
from tasks.domain import Behaviour, Provider
from tasks.models import NotificationRow, PaymentRow, RefundRow, RehearsalRow
from tasks.rehearsal import ProviderDown

TOTAL = Decimal("22.50")


def tell(shop: Shop, provider: Provider, run_id: str = "r1", **behaviour: object) -> None:
    shop.run(rehearsal.rehearse, {provider: Behaviour(**behaviour)}, run_id=run_id)  # type: ignore[arg-type]


def test_a_provider_fails_for_good_as_it_was_told(shop: Shop) -> None:
    tell(shop, Provider.STRIPE, error="card declined", code=402)

    with pytest.raises(TerminalError, match="stripe: card declined") as raised:
        shop.run(payment.charge_stripe, "o1", TOTAL)
    assert raised.value.code == 402
    assert shop.rows(PaymentRow) == 0


def test_it_fails_so_many_attempts_as_it_was_told(shop: Shop) -> None:
    tell(shop, Provider.STRIPE, error="busy", failing_attempts=2)

    for attempt in (1, 2):
        with pytest.raises(ProviderDown, match="stripe: busy"):
            shop.run(payment.charge_stripe, "o1", TOTAL, attempt=attempt)
    shop.run(payment.charge_stripe, "o1", TOTAL, attempt=3)

    assert shop.rows(PaymentRow) == 1


def test_it_takes_the_time_it_was_told(shop: Shop) -> None:
    tell(shop, Provider.SMS, latency_ms=250)
    waited: list[float] = []

    rehearsal.play(Provider.SMS, CurrentStep("r1", "", ""), wait=waited.append)

    assert waited == [0.25]


def test_only_that_run_and_that_provider_are_told(shop: Shop) -> None:
    tell(shop, Provider.STRIPE, error="down")

    shop.run(payment.charge_paypal, "o1", TOTAL)
    shop.run(payment.charge_stripe, "o2", TOTAL, run_id="r2")

    assert shop.rows(PaymentRow) == 2


def test_telling_twice_is_telling_once(shop: Shop) -> None:
    tell(shop, Provider.STRIPE, error="down")
    tell(shop, Provider.STRIPE, latency_ms=5)

    assert rehearsal.behaviour_of(Provider.STRIPE, "r1").error == "down"
    assert shop.rows(RehearsalRow) == 1


def test_telling_nothing_writes_nothing(shop: Shop) -> None:
    shop.run(rehearsal.rehearse, {})

    assert shop.rows(RehearsalRow) == 0


def test_settings_hold_for_runs_that_were_told_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_SIMULATE", '{"stripe": {"error": "closed"}, "sms": {"latency_ms": 9}}')
    tell(shop, Provider.STRIPE, latency_ms=1)

    assert rehearsal.behaviour_of(Provider.STRIPE, "r1") == Behaviour(latency_ms=1)
    assert rehearsal.behaviour_of(Provider.STRIPE, "r2") == Behaviour(error="closed")
    assert rehearsal.behaviour_of(Provider.SMS, "r1") == Behaviour(latency_ms=9)
    assert rehearsal.behaviour_of(Provider.PUSH, "r1") == Behaviour()


@pytest.mark.parametrize("text", ["{", '{"strip": {}}', '{"stripe": {"latency": 5}}', '{"stripe": {"code": 200}}'])
def test_settings_that_cant_be_read_are_told(shop: Shop, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SHOP_SIMULATE", text)

    with pytest.raises(ConfigError, match=r"SHOP_SIMULATE=.* can't be read .*write a mapping like"):
        rehearsal.behaviour_of(Provider.STRIPE, "r1")


def test_a_step_that_had_its_effect_does_not_call_again(shop: Shop) -> None:
    reservation_id = shop.run(inventory.reserve, "o1", ITEMS).reservation_id
    slot = shop.run(shipping.reserve_slot, "o1", HOME, ITEMS)
    steps = [
        (payment.charge_stripe, "o1", TOTAL),
        (warehouse.pick_items, reservation_id, ITEMS),
        (shipping.generate_label, slot.slot_id, HOME),
        (notification.send_push, "ADA", "Hello", "Ada"),
    ]
    first = [shop.run(*call) for call in steps]
    for provider in Provider:
        tell(shop, provider, error="down")

    assert [shop.run(*call) for call in steps] == first


def test_a_refund_that_the_provider_refuses_is_not_written(shop: Shop) -> None:
    paid = shop.run(payment.charge_stripe, "o1", TOTAL)
    tell(shop, Provider.REFUNDS, error="bank closed")

    with pytest.raises(TerminalError, match="refunds: bank closed"):
        shop.run(payment.refund, paid, undoes="r1/payment.charge_stripe")
    assert shop.rows(RefundRow) == 0


def test_a_charge_that_went_through_while_it_was_being_undone_is_refunded_at_the_next_attempt(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.run(payment.charge_stripe, "o1", TOTAL)
    look, undoes = payment.captured, "r1/payment.charge_stripe"
    too_early = iter([True])
    monkeypatch.setattr(payment, "captured", lambda *args: None if next(too_early, False) else look(*args))

    with pytest.raises(ProviderDown, match="went through while it was being undone"):
        shop.run(payment.refund, None, undoes=undoes)
    shop.run(payment.refund, None, undoes=undoes, attempt=2)

    assert shop.rows(RefundRow) == 1


# Messages


@pytest.mark.parametrize("to", ["nobody", "a b@example.org", "a@example.org\nBcc: b@example.org"])
def test_what_is_not_an_address_is_refused(shop: Shop, to: str) -> None:
    with pytest.raises(TerminalError, match="is not an e-mail address") as raised:
        shop.run(notification.send_email, to, "Hello", "Ada")
    assert raised.value.code == 400


@pytest.mark.parametrize("nowhere", [None, ""])
def test_without_an_address_nothing_is_sent(shop: Shop, nowhere: str | None) -> None:
    assert shop.run(notification.send_email, nowhere, "Hello", "Ada") == "no address"
    assert shop.run(notification.send_sms, nowhere, "Hello") == "no address"
    assert shop.rows(NotificationRow) == 0


def test_without_a_server_mail_waits_in_the_outbox(shop: Shop) -> None:
    assert shop.run(notification.send_email, "a@example.org", "Hello", "Ada") == "outbox"
    assert shop.rows(NotificationRow, channel="email", recipient="a@example.org", sent=False) == 1


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as smtplib needs, and keeps what it gets."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), MailHandler)
        self.mails: list[str] = []
        self.answer_to_recipient = "250 fine"


class MailHandler(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.say("220 ready")
        while line := self.rfile.readline().decode().strip():
            match line.split()[0].upper():
                case "RCPT":
                    self.say(self.server.answer_to_recipient)
                case "DATA":
                    self.say("354 go on")
                    self.server.mails.append("".join(self.text()))
                    self.say("250 taken")
                case "QUIT":
                    self.say("221 bye")
                    return
                case _:
                    self.say("250 fine")

    def text(self) -> Iterator[str]:
        while (line := self.rfile.readline().decode()) != ".\r\n":
            yield line.replace("\r\n", "\n")

    def say(self, words: str) -> None:
        self.wfile.write(f"{words}\r\n".encode())


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> Iterator[MailServer]:
    with MailServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
        monkeypatch.setenv("SMTP_PORT", str(server.server_address[1]))
        monkeypatch.setenv("SMTP_SENDER", "shop@example.org")
        yield server
        server.shutdown()


def test_mail_is_spoken_to_the_server(shop: Shop, mail: MailServer) -> None:
    assert shop.run(notification.send_email, "a@example.org", "Größe", "Straße 1\n") == "sent"

    (text,) = mail.mails
    sent = message_from_string(text)
    assert (sent["To"], sent["From"]) == ("a@example.org", "shop@example.org")
    assert sent["Message-ID"].endswith("@example.org>")
    assert shop.rows(NotificationRow, sent=True) == 1


def test_a_mail_that_was_sent_is_not_sent_again(shop: Shop, mail: MailServer) -> None:
    for _ in range(2):
        shop.run(notification.send_email, "a@example.org", "Hello", "Ada")

    assert len(mail.mails) == 1


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [("550 unknown user", TerminalError, "550 unknown user"), ("451 later", ProviderDown, "451 later")],
)
def test_a_refused_recipient_is_for_good_or_worth_a_retry(
    shop: Shop, mail: MailServer, answer: str, error: type[Exception], said: str
) -> None:
    mail.answer_to_recipient = answer

    with pytest.raises(error, match=said):
        shop.run(notification.send_email, "a@example.org", "Hello", "Ada")
    assert shop.rows(NotificationRow) == 0


def test_a_server_that_is_not_there_is_worth_a_retry(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", "9")

    with pytest.raises(ProviderDown, match=r"127\.0\.0\.1:9 did not answer"):
        shop.run(notification.send_email, "a@example.org", "Hello", "Ada")


@pytest.mark.parametrize("port", ["smtp", "0", "65536", "-1"])
def test_a_bad_port_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("SMTP_PORT", port)

    with pytest.raises(ConfigError, match=f"SMTP_PORT='{port}' is not a port: write a number"):
        shop.run(notification.send_email, "a@example.org", "Hello", "Ada")
