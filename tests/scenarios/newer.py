"""The server as a later version will be: one that knows a step of the schema more. Not a test.

python -m tests.scenarios.newer up --data DIR --store URL
"""

from functools import partial

from paceline.stores import postgres
from paceline.stores.statements import Migration, load_migrations

KNOWN = load_migrations("postgres")
LATER = Migration(
    len(KNOWN) + 1,
    "later",
    f"""-- oldest program: {len(KNOWN)}
    ALTER TABLE message ADD COLUMN later text;
    ALTER TABLE waiting ADD COLUMN later bigint NOT NULL DEFAULT 7;
    ALTER TABLE under_way ADD COLUMN later bigint NOT NULL DEFAULT 7;
    ALTER TABLE tally ADD COLUMN later bigint NOT NULL DEFAULT 7;
    CREATE TABLE later (id bigint PRIMARY KEY);
    """,
    "-",
)
"""A step that touches every table that is written all the time."""


def main() -> None:
    """The command line of that version."""
    from paceline.cli.main import main as run

    postgres.PostgresStore = partial(  # type: ignore[assignment,misc]  # called as the class is
        postgres.PostgresStore, steps=(*KNOWN, LATER)
    )
    run()


if __name__ == "__main__":
    main()
