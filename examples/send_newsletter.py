"""Send a newsletter to everybody in contacts.csv, through a running server.

    paceline up                                     # in another terminal
    paceline accounts set news --channel smtp --set host=127.0.0.1 --set port=2525 --set security=none \
        --set "from=News <news@example.com>" --limit 20/10s
    python examples/mail_catcher.py                 # in a third one: takes the mails
    PACELINE_KEY=$(cat data/admin.key) python examples/send_newsletter.py

Run it twice: nobody gets it twice, because every contact has an idempotency key.
"""

import asyncio
import csv
from pathlib import Path

from paceline import Paceline

HERE = Path(__file__).parent
ISSUE = 7


async def main() -> None:
    subject = "Issue {{ issue }}, for {{ name }}"
    text, html = ((HERE / f"newsletter.{kind}").read_text("utf-8") for kind in ("txt", "html"))
    with (HERE / "contacts.csv").open(encoding="utf-8", newline="") as file:
        contacts = list(csv.DictReader(file))
    async with Paceline() as app:
        await app.templates.set("newsletter", subject=subject, text=text, html=html)
        batches = await app.send_many(
            (
                {
                    "to": contact["address"],
                    "variables": {"name": contact["name"], "address": contact["address"], "issue": ISSUE},
                    "idempotency_key": f"newsletter-{ISSUE}:{contact['address']}",
                }
                for contact in contacts
            ),
            channel="smtp",
            template="newsletter",
            campaign=f"newsletter-{ISSUE}",
        )
        for batch in batches:
            fresh, known = len(batch.ids) - len(batch.duplicates), len(batch.duplicates)
            print(f"{fresh} taken in, {known} known from an earlier run, {len(batch.rejected)} refused")
            for rejected in batch.rejected[:3]:
                print(f"  item {rejected.index}: {'; '.join(one.problem for one in rejected.errors)}")
        first = batches[0].ids[0]
        for reason in await app.why(first):
            print(f"the first one waits: {reason.text}")
        sent = await app.wait(first, seconds=60)
        print(f"the first one is {sent.state}")


if __name__ == "__main__":
    asyncio.run(main())
