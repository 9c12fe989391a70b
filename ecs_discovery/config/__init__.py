"""What can be set: policies and their rules, settings, targets, and the options of one request."""
