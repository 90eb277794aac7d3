"""Decides everything, touches nothing."""
