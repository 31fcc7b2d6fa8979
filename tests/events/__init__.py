"""What happened, told in order: streams of events and the audit log."""
