"""How to send: one file a channel, each with its error table and its source."""
