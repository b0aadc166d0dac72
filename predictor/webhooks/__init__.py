"""Webhooks: which URLs are allowed, and their delivery."""
