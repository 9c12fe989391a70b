"""Tests of the exchange that all HTTP integrations share."""
