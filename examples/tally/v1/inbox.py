"""The tickets: number N is the same on every machine."""

SUBJECTS = (
    "Production is down for everyone",
    "Cannot log in since the update",
    "The invoice shows our old address",
    "Thank you, that solved it",
    "How do I export my data?",
    "Nobody can pay: checkout is down",
    "The search is slow today",
    "Refund for a double payment, please",
    "Is there a dark theme?",
    "Thanks for the quick help",
)


def ticket(number: int) -> str:
    """The subject of a ticket."""
    return SUBJECTS[number * 7 % len(SUBJECTS)]
