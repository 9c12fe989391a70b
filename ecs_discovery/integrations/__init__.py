"""Integrations: one module per client library. Each needs that library; nothing else imports them.

Enters: send, table, timeouts, replay, error classes of one library. What two libraries need goes to `http`.
"""
