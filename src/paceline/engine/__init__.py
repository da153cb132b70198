"""The moving parts: intake, dispatcher, attempts, upkeep, and the verbs that people and programs call."""
