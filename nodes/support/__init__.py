"""What all nodes share: parameters, QoS, message classes, running, diagnostics; and starting nodes from Python."""
