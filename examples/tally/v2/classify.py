"""The rules, second edition: money and thanks have queues of their own; who cannot work is urgent."""

RULES = 2
WEIGHTS = {"down": 3, "cannot": 3, "nobody": 2, "slow": 1, "thank": -2}
MONEY = ("invoice", "refund", "pay")


def sort(subject: str, settings: dict[str, float]) -> tuple[str, int]:
    """The queue of a ticket, and its score."""
    text = subject.lower()
    score = sum(weight for word, weight in WEIGHTS.items() if word in text)
    if score >= settings["urgent_from"]:
        return "urgent", score
    if "thank" in text:
        return "thanks", score
    return ("billing" if any(word in text for word in MONEY) else "general"), score
