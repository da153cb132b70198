-- What the places say is in the journal as well, from which the version before counts.
DROP TABLE place_held, place_free, place_made, wide_revision, wide;
