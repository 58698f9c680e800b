"""The network: geometry, delay laws, scenario, plan, Mininet, and the kernel it runs in."""
