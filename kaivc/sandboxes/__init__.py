"""Sandboxes: one file for each way of running a command apart; what goes in and comes out stands in `base`."""
