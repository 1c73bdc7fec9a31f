"""Hostile objects and input: what is placed, through which doors it comes, and what is expected."""
