"""The Twisted peers: a poetry server, and a caching poetry proxy in front of one, each
as small as people write them.

    python3 poems.py server POEM
    python3 poems.py proxy HOST:PORT

Each prints a line whose last word is its address. Not part of the program: the benches
start these for comparison.
"""

import sys

from twisted.internet import defer, protocol, reactor

# As the program under test. Twisted's default of 50 could not hold the 2,500 clients
# that queue for a drain.
BACKLOG = 4096


class PoemServer(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(self.factory.poem)
        self.transport.loseConnection()


class PoemFetch(protocol.Protocol):
    def __init__(self):
        self.pieces = []

    def dataReceived(self, data):
        self.pieces.append(data)

    def connectionLost(self, reason=protocol.connectionDone):
        self.factory.fetched.callback(b"".join(self.pieces))


class PoemProxy(protocol.Protocol):
    def connectionMade(self):
        answer = defer.maybeDeferred(self.factory.poem)
        answer.addCallback(self.transport.write)
        answer.addBoth(lambda _: self.transport.loseConnection())


class Cache:
    def __init__(self, upstream):
        self.host, port = upstream.split(":")
        self.port = int(port)
        self.cached = None

    def __call__(self):
        if self.cached is not None:
            return self.cached
        fetch = protocol.ClientFactory()
        fetch.protocol = PoemFetch
        fetch.noisy = False
        fetch.fetched = defer.Deferred()
        fetch.fetched.addCallback(self.store)
        reactor.connectTCP(self.host, self.port, fetch)
        return fetch.fetched

    def store(self, poem):
        self.cached = poem
        return poem


def main(kind, argument):
    factory = protocol.ServerFactory()
    if kind == "server":
        factory.protocol = PoemServer
        with open(argument, "rb") as poem:
            factory.poem = poem.read()
    else:
        factory.protocol = PoemProxy
        factory.poem = Cache(argument)

    port = reactor.listenTCP(0, factory, backlog=BACKLOG, interface="127.0.0.1")
    print("ready on 127.0.0.1:%d" % port.getHost().port, flush=True)
    reactor.run()


main(*sys.argv[1:])
