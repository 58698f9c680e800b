"""User-space packet gateways: ESP tunnels keyed from a KMS."""
