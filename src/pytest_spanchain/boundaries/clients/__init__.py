"""The clients of other people's services: one library a file, each a thin translator."""
