"""The seams at which agent frameworks run tools: one framework a file, each a thin translator."""
