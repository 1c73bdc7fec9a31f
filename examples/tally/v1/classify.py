"""The rules, first edition: what is urgent."""

RULES = 1
WEIGHTS = {"down": 3, "cannot": 2, "slow": 1}


def sort(subject: str, settings: dict[str, float]) -> tuple[str, int]:
    """The queue of a ticket, and its score."""
    score = sum(weight for word, weight in WEIGHTS.items() if word in subject.lower())
    return ("urgent" if score >= settings["urgent_from"] else "general"), score
