"""The robots that an embedder serves: their topics, and the processes that may work for them."""
