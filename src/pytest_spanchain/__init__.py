"""Golden-trace regression testing of AI agents."""
