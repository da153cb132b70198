"""Fault runs against the real server, judged by a provider that keeps its own ledger. For a person to start."""
