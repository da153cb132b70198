"""HTTP: the contract's calls over the engine's verbs, the event stream, the reference page."""
