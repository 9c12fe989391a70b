"""Integrations: one module per client library. Each needs that library; nothing else imports them."""
