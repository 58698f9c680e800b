"""Key management: the ledger, ETSI GS QKD 014 over mutual TLS, key relay."""
