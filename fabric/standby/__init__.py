"""A standby on another host: it follows a publisher's channels into logs of its own, and takes them over in new sessions."""
