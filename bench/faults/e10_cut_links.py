"""E10: the link to the provider is cut in each phase of a call.

A proxy before the witness and before a real SMTP server goes wrong in one way for all first attempts, and lets
everything through afterwards. Each phase has one right class, which docs/channels names; what is certainly not
taken is sent again and arrives once, and what may have been taken arrives at most once more where that is safe.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.faults.experiment import Experiment, Figure, Scale, no_less, no_more
from bench.faults.loop import Loop
from bench.faults.proxy import Cut, Phase, Proxy
from bench.faults.variant import Variant
from tests.contracts.peers.smtp import SmtpPeer
from tests.scenarios.ledger import Arrival
from tests.scenarios.server import Server, Witness, text_body, until

TIMES = 200
AGAIN = {"type": "fixed", "delay": "1h"}
LARGE = "a line of a mail that no system takes into its buffers whole\n" * 80_000
TAKEN = b"250 2.0.0 OK: queued"

HTTP = {
    "refused": Phase(refuse=True),
    "reset at once": Phase(accept=True),
    "before the body": Phase(up=Cut(b"\r\n\r\n")),
    "in the body": Phase(up=Cut(b"\r\n\r\n", 12)),
    "after the body": Phase(down=Cut()),
    "in the head of the answer": Phase(down=Cut(b"HTTP/1.1 2")),
    "in the body of the answer": Phase(down=Cut(b"\r\n\r\n", 5)),
}
SMTP = {
    "refused": Phase(refuse=True),
    "reset at once": Phase(accept=True),
    "before MAIL": Phase(up=Cut(b"MAIL FROM", -9)),
    "after DATA, before the text": Phase(down=Cut(b"354", -3)),
    "in the text of a large mail": Phase(up=Cut(b"DATA\r\n", 20_000)),
    "in the text of a small mail": Phase(up=Cut(b"hello\r\n.\r\n", -5)),
    "before the dot's last byte": Phase(up=Cut(b"hello\r\n.\r\n", -1)),
    "after the dot": Phase(down=Cut(TAKEN, -len(TAKEN))),
    "in the answer": Phase(down=Cut(TAKEN, -15)),
}
LARGE_ONE = "in the text of a large mail"
RIGHT: Mapping[str, Mapping[str, tuple[str, int, int]]] = {
    # Class of the first attempt, and how often the peer has got the message in the end, least and most. A reset
    # that comes before the first byte was written is told from one that comes with it.
    "telegram-bot": {
        "refused": ("temporary", 1, 1), "reset at once": ("temporary uncertain", 0, 1), "before the body": ("uncertain", 0, 0),
        "in the body": ("uncertain", 0, 0), "after the body": ("uncertain", 1, 1),
        "in the head of the answer": ("uncertain", 1, 1), "in the body of the answer": ("uncertain", 1, 1),
    },
    "webhook": {
        "refused": ("temporary", 1, 1), "reset at once": ("temporary uncertain", 1, 1), "before the body": ("uncertain", 1, 1),
        "in the body": ("uncertain", 1, 1), "after the body": ("uncertain", 2, 9),
        "in the head of the answer": ("uncertain", 2, 9), "in the body of the answer": ("accepted", 1, 1),
    },
    "smtp": {
        "refused": ("temporary", 1, 1), "reset at once": ("temporary", 1, 1), "before MAIL": ("temporary", 1, 1),
        "after DATA, before the text": ("temporary", 1, 1), "in the text of a large mail": ("temporary", 1, 1),
        # The dot was written, and nobody can know that it went no further than a buffer.
        "in the text of a small mail": ("uncertain", 0, 0),
        "before the dot's last byte": ("uncertain", 0, 0), "after the dot": ("uncertain", 1, 1),
        "in the answer": ("uncertain", 1, 1),
    },
}  # fmt: skip


class Tried:
    """One channel through one phase."""

    def __init__(self, channel: str, name: str, phase: Phase, proxy: Proxy) -> None:
        self.channel, self.name, self.phase, self.proxy = channel, name, phase, proxy
        self.account = f"{channel}-{list(RIGHT[channel]).index(name)}"
        self.ids: dict[str, str] = {}
        self.classes: Counter[str] = Counter()

    def times(self, times: int) -> int:
        return max(2, times // 20) if self.name == LARGE_ONE else times

    def message(self, number: int) -> dict:
        text = f"{self.account} {number}"
        if self.channel == "telegram-bot":
            made = text_body(self.account, text)
        elif self.channel == "webhook":
            url = f"http://127.0.0.1:{self.proxy.port}/hook/{self.account}"
            made = {"channel": "webhook", "to": url, "payload": {"text": text}}
        else:
            body = LARGE if self.name == LARGE_ONE else "hello"
            made = {
                "channel": "smtp",
                "account": self.account,
                "to": "ada@example.com",
                "subject": text,
                "text": body,
            }
        return made | {"backoff": AGAIN, "max_attempts": 50, "timeout": "20s"}

    def set_up(self, server: Server, number: int) -> None:
        settings: dict = {"token": f"{number}:secret", "base_url": f"http://127.0.0.1:{self.proxy.port}"}
        if self.channel == "smtp":
            settings = {
                "host": "127.0.0.1",
                "port": self.proxy.port,
                "security": "none",
                "from": "shop@example.com",
            }
        if self.channel != "webhook":
            # Without a circuit, which would let one message go a minute once five have been cut off.
            body = {"channel": self.channel, "settings": settings, "concurrency": 8, "circuit": None}
            server.api("PUT", f"/accounts/{self.account}", body)


def run(folder: Path, scale: Scale, breaking: str) -> list[Figure]:
    times = scale.count(TIMES, 3)
    loop, peer = Loop(), SmtpPeer()
    with Witness(folder) as witness, Variant(folder, breaking, settings=("in_flight=500",)) as server, loop:
        loop.run(peer.__aenter__())
        tried = [
            _tried(loop, c, n, p, witness, peer)
            for c in RIGHT
            for n, p in (SMTP if c == "smtp" else HTTP).items()
        ]
        server.start()
        for number, each in enumerate(tried):
            each.set_up(server, 2000 + number)
            loop.run(each.proxy.set(each.phase))
        for each in tried:
            for number in range(each.times(times)):
                each.ids[f"{each.account} {number}"] = server.send(**each.message(number))
        until(lambda: not server.count("pending", "processing"), "each has been tried once", 60 + times)
        for each in tried:
            each.classes = Counter(server.get(id_)["history"][0]["outcome"] for id_ in each.ids.values())
            loop.run(each.proxy.set(None))
        server.api("POST", "/messages/actions", {"action": "retry", "filter": {"state": ["retrying"]}})
        until(lambda: not server.count("pending", "processing", "retrying"), "the rest has gone", 60 + times)
        got = Counter(a.text for a in witness.arrivals() if a.taken)
        got.update(_subject(mail.data) for mail in peer.got)
        keys = _changed_keys(witness.arrivals())
        server.stop()
        for each in tried:
            loop.run(each.proxy.close())
        loop.run(peer.__aexit__(None, None, None))
    return _judge(tried, got, keys)


def _tried(loop: Loop, channel: str, name: str, phase: Phase, witness: Witness, peer: SmtpPeer) -> Tried:
    port = peer.port if channel == "smtp" else witness.port
    return Tried(channel, name, phase, loop.run(Proxy(lambda: port).open()))


def _subject(mail: bytes) -> str:
    line = next(each for each in mail.splitlines() if each.lower().startswith(b"subject:"))
    return line.partition(b":")[2].strip().decode()


def _changed_keys(arrivals: list[Arrival]) -> int:
    keys: dict[str, set[str]] = {}
    for arrival in arrivals:
        if arrival.key:
            keys.setdefault(arrival.text, set()).add(arrival.key)
    return sum(len(found) > 1 for found in keys.values())


def _judge(tried: list[Tried], got: Counter[str], changed_keys: int) -> list[Figure]:
    figures, wrong, miscounted, doubled = [], 0, 0, 0
    for each in tried:
        class_, least, most = RIGHT[each.channel][each.name]
        counts = Counter(got[text] for text in each.ids)
        badly = len(each.ids) - sum(each.classes[one] for one in class_.split())
        off = sum(n for count, n in counts.items() if not least <= count <= most)
        wrong, miscounted = wrong + badly, miscounted + off
        doubled += sum(n for count, n in counts.items() if count > 1 and most == 1)
        value = f"{dict(each.classes)}, arrived {dict(sorted(counts.items()))} (cut {each.proxy.cuts})"
        gate = f"{class_.replace(' ', ' or ')}, arrived {least}" + (f" to {most}" if most > least else "")
        figures.append(Figure(f"{each.channel}, {each.name}", value, gate, not badly and not off))
    return [
        *figures,
        no_less("messages cut off in all", sum(len(each.ids) for each in tried), 50),
        no_more("wrong classes", wrong, 0),
        no_more("arrived more or less often than is right", miscounted, 0),
        no_more("sent twice where that is not safe", doubled, 0),
        no_more("webhooks that came again under another id", changed_keys, 0),
    ]


EXPERIMENT = Experiment(
    id="E10",
    title="links cut in each phase",
    run=run,
    breaks={
        "cut-is-temporary": "a cut after the request was written is taken for 'not sent'",
        "dot-is-forgotten": "SMTP does not remember that it wrote the final dot",
        "uncertain-is-repeated": "what may have been taken is sent again on every channel",
    },
)
