"""The batch path of a gateway: super-packets in and out of the TUN device, many ESP packets a system call."""
