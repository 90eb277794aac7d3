"""The same answers from Twisted, for `twistd --python`; the port is in $BENCH_PORT."""

from __future__ import annotations

import os

from twisted.application import service, strports
from twisted.internet import protocol


class Answer(protocol.Protocol):  # type: ignore[misc, unused-ignore]  # untyped where it is not installed
    """Read, answer with the pid, hang up."""

    def dataReceived(self, data: bytes) -> None:  # noqa: N802, ARG002, D102 - Twisted's own name
        self.transport.write(b"%d\n" % os.getpid())
        self.transport.loseConnection()


application = service.Application("bench")
place = f"tcp:{os.environ['BENCH_PORT']}:interface=127.0.0.1"
strports.service(place, protocol.Factory.forProtocol(Answer)).setServiceParent(application)
