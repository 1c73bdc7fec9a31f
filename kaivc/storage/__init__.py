"""Bytes: objects, packs, the catalog."""
