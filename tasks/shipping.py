"""Places in the carrier's van, and labels."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from canvas import current_step, step
from status.errors import TerminalError
from tasks import gateway
from tasks.domain import Address, Label, OrderLine, Provider, Slot
from tasks.models import SlotRow, SlotState
from tasks.once import add, derived_id, earlier, once, undo_once
from tasks.rehearsal import play

#: No carrier goes there.
UNSERVED_COUNTRIES = frozenset({"antarctica", "atlantis"})


@step(name="shipping.check_availability", queue="shipping")
def check_availability(address: Address) -> bool:
    """Whether a carrier goes there."""
    return address.country.casefold() not in UNSERVED_COUNTRIES


@step(name="shipping.reserve_slot", queue="shipping")
def reserve_slot(order_id: str, address: Address, items: tuple[OrderLine, ...] = ()) -> Slot:
    """Reserve a place in a van.

    Raises:
        TerminalError: The order has one already (code 409), or the carrier has none.
        ProviderDown: No answer.
    """
    del items  # the local vans are large
    done = earlier(Slot)
    if done is not None:
        return done
    play(Provider.SLOTS, current_step())
    return once(Slot, lambda session, key: book(session, key, order_id, address))


@step(name="shipping.cancel_slot", queue="shipping")
def cancel_slot(slot: Slot | None) -> None:
    """Undo `reserve_slot`, and the label that may be on it. `slot` is None if it is unknown."""
    undo_once(lambda session, r: cancel(session, r.undoes, slot))


@step(name="shipping.generate_label", queue="shipping")
def generate_label(slot_id: str, address: Address) -> Label:
    """Have the parcel's label made. Cancelling the slot voids it; a cancelled slot gets none.

    Raises:
        TerminalError: The slot is cancelled or has a label (code 409), or the carrier refuses.
        ProviderDown: No answer.
    """
    done = earlier(Label)
    if done is not None:
        return done
    tracking_number = gateway.carrier().label(current_step(), slot_id, address)
    return once(Label, lambda session, _key: stick(session, slot_id, tracking_number))


def book(session: Session, key: str, order_id: str, address: Address) -> Slot:
    """Write a slot.

    Raises:
        TerminalError: The order has one already (code 409).
    """
    slot_id = derived_id("slot", key)
    row = SlotRow(slot_id=slot_id, order_id=order_id, city=address.city, key=key)
    add(session, row, already=f"order {order_id} has a slot already")
    return Slot(slot_id, order_id)


def cancel(session: Session, undoes: str | None, slot: Slot | None) -> None:
    """Cancel the slot that the undone step reserved; without such a step, the one that is given."""
    if undoes is not None:
        mine = SlotRow.key == undoes
    elif slot is not None:
        mine = SlotRow.slot_id == slot.slot_id
    else:
        return
    session.execute(update(SlotRow).where(mine).values(state=SlotState.CANCELLED))


def stick(session: Session, slot_id: str, tracking_number: str) -> Label:
    """Write the label on a reserved slot.

    Raises:
        TerminalError: The slot is not reserved (code 409).
    """
    labelled = session.scalar(
        update(SlotRow)
        .where(SlotRow.slot_id == slot_id, SlotRow.state == SlotState.RESERVED)
        .values(state=SlotState.LABELLED, tracking_number=tracking_number)
        .returning(SlotRow.slot_id)
    )
    if labelled is None:
        raise TerminalError(f"slot {slot_id} is cancelled or has a label: it gets none", code=409)
    return Label(slot_id, tracking_number)
