"""Code that the nodes share: parameters, QoS, message classes, running, diagnostics, starting nodes from Python."""
