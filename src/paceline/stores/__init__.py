"""Where messages are kept: one narrow protocol in `base`, one implementation a database."""
