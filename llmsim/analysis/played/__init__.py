"""From ops that were played to rows and ledgers: the trace, seconds by cause, bytes on links."""
