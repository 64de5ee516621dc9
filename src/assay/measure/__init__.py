"""Clock, statistics and memory."""
