"""A rule over the payments of an account: a small one, by which a stolen card is tried, and soon after it a large one."""

from __future__ import annotations

from flink_bridge import INT, Context, Message, Step, Timer, To


def account_of(message: Message) -> str:
    """The account of a payment, however its terminal writes it: `Ada`, ` ada`."""
    account: str = message.json()["account"]
    return account.strip().casefold()


class SmallThenLarge(Step):
    """Sends each payment on, and to the route `suspect` an alert for a large one that follows a small one too soon.

    `options: { small: AMOUNT, large: AMOUNT, within: MILLISECONDS }`. What is remembered of an account is the time of its last small
    payment; a timer of event time forgets it.
    """

    def open(self, context: Context) -> None:
        self.small = float(context.options.get("small", "1"))
        self.large = float(context.options.get("large", "500"))
        self.within = int(context.options.get("within", "60000"))
        self.tried = context.state.value("tried", INT)
        self.due = context.state.timers("due")
        self.alerts = context.metrics.counter("alerts")

    def process(self, message: Message) -> list[Message | To]:
        amount = message.json()["amount"]
        tried: int | None = self.tried.get()
        out: list[Message | To] = [message]
        if amount >= self.large and tried is not None and tried <= message.timestamp <= tried + self.within:
            self.alerts.add()
            out.append(To("suspect", {**message.json(), "after": message.timestamp - tried}))
            self._forget(tried)
        if amount <= self.small:
            self._remember(tried, message.timestamp)
        return out

    def on_timer(self, timer: Timer) -> None:
        """No large payment has come in time."""
        self.tried.clear()

    def _remember(self, before: int | None, time: int) -> None:
        if before is not None:
            self._forget(before)
        self.tried.set(time)
        self.due.at_event_time(time + self.within + 1)

    def _forget(self, time: int) -> None:
        self.due.delete_event_time(time + self.within + 1)
        self.tried.clear()
