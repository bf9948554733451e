"""What keeps a node running: errors of its callbacks are counted and logged, and the other callbacks continue."""
