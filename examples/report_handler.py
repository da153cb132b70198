"""A Python function as a handler, in the same process as the queue: slow work out of the request path.

    python examples/report_handler.py

The job is on disk before `send` returns. Stop the program in the middle, start it again: what waited is run.
"""

import asyncio
from typing import Any

from paceline import Paceline

app = Paceline(data="data")


@app.handler("report-generation")
async def make_report(job: Any) -> dict[str, Any]:
    """Four steps, each reported; what it returns is kept as the result."""
    steps = ("reading rows", "adding up", "drawing", "writing")
    for number, step in enumerate(steps):
        job.progress(100 * number / len(steps), step)
        await asyncio.sleep(0.5)  # the work
    return {"month": job.payload["month"], "pages": 12}


async def main() -> None:
    async with app:
        receipt = await app.send(
            channel="handler",
            queue="report-generation",
            kind="report-generation",
            payload={"month": "2030-01"},
        )
        shown = ""
        while not (message := await app.get(receipt.id)).ended:
            if message.progress["step"] != shown:
                shown = message.progress["step"]
                print(f"{message.progress['percent']:3.0f} %  {shown}")
            await asyncio.sleep(0.1)
        print(message.state, message.result)


if __name__ == "__main__":
    asyncio.run(main())
