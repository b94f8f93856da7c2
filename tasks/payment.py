"""Money: charge with one of two providers, give it back."""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import select
from sqlalchemy.orm import Session

from canvas import Retry, current_step, step
from saga.effects import Receipt
from tasks import gateway
from tasks.domain import Payment, Provider
from tasks.models import PaymentRow, RefundRow
from tasks.once import add, derived_id, earlier, once, reading, undo_once
from tasks.rehearsal import ProviderDown

ACCEPTED = frozenset({"card", "paypal", "invoice", "bank_transfer"})
_RETRY = Retry(max_attempts=3, first_s=0.2)


@step(name="payment.validate", queue="payment")
def validate(payment_method: str) -> bool:
    """Whether the shop takes this method."""
    return payment_method in ACCEPTED


@step(name="payment.charge_stripe", queue="payment", retry=_RETRY)
def charge_stripe(order_id: str, total: Decimal) -> Payment:
    """Charge with the primary provider.

    Raises:
        TerminalError: Declined.
        ProviderDown: No answer.
    """
    return _charge(Provider.STRIPE, order_id, total)


@step(name="payment.charge_paypal", queue="payment", retry=_RETRY)
def charge_paypal(order_id: str, total: Decimal) -> Payment:
    """Charge with the backup.

    Raises:
        TerminalError: Declined.
        ProviderDown: No answer.
    """
    return _charge(Provider.PAYPAL, order_id, total)


@step(name="payment.refund", queue="payment")
def refund(payment: Payment | None) -> None:
    """Undo a charge: the money goes back; a charge that never was will never be.

    Args:
        payment: What the charge gave; None if that is unknown, then it is looked for.

    Raises:
        ProviderDown: No answer.
    """
    step_now = current_step()
    with reading() as session:
        owed = captured(session, step_now.undoes, payment)
    if owed is not None:
        gateway.payments(Provider(owed.provider)).refund(step_now, owed.transaction_id, owed.amount)
    undo_once(lambda session, r: pay_back(session, step_now.idempotency_key, r, payment, owed))


def _charge(provider: Provider, order_id: str, amount: Decimal) -> Payment:
    done = earlier(Payment)
    if done is not None:
        return done
    # The hold is outside of the transaction and harmless; the row that captures it is inside.
    transaction_id = gateway.payments(provider).authorize(current_step(), order_id, amount)
    return once(
        Payment,
        lambda session, key: capture(
            session, key, order_id=order_id, provider=provider, amount=amount, transaction_id=transaction_id
        ),
    )


def capture(
    session: Session, key: str, *, order_id: str, provider: Provider, amount: Decimal, transaction_id: str
) -> Payment:
    """Write that the money is ours.

    Raises:
        TerminalError: The transaction is captured already (code 409).
    """
    payment_id = derived_id("pay", key)
    row = PaymentRow(
        payment_id=payment_id,
        order_id=order_id,
        provider=provider.value,
        amount=amount,
        transaction_id=transaction_id,
        key=key,
    )
    add(session, row, already=f"{provider} has captured {transaction_id} already")
    return Payment(payment_id, order_id, provider.value, amount, transaction_id)


def captured(session: Session, undoes: str | None, payment: Payment | None) -> PaymentRow | None:
    """The payment that is to be given back: by the charge's key, else by the payment itself."""
    if undoes is not None:
        return session.scalar(select(PaymentRow).where(PaymentRow.key == undoes))
    return None if payment is None else session.get(PaymentRow, payment.payment_id)


def pay_back(session: Session, key: str, r: Receipt, payment: Payment | None, owed: PaymentRow | None) -> None:
    """Write that the money of `owed`, which the provider has sent, is the customer's again.

    Raises:
        ProviderDown: The charge went through after `owed` was looked for: the provider must be asked first.
    """
    found = captured(session, r.undoes, payment)
    if found is None or session.get(RefundRow, found.payment_id) is not None:
        return
    if owed is None:
        raise ProviderDown(f"the charge {found.payment_id} went through while it was being undone: try again")
    row = RefundRow(payment_id=found.payment_id, order_id=found.order_id, amount=found.amount, key=key)
    add(session, row, already=f"payment {found.payment_id} is refunded already")
