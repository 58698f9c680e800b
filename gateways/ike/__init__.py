"""IKEv2 (RFC 7296) with keys from quantum key distribution (RFC 8784, RFC 9867)."""
