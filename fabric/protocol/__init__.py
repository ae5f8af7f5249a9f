"""The protocol, free of sockets and clocks: events, requests and replies, the subscription state machine."""
