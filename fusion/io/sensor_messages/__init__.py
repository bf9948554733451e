"""Turns the messages of sensors into samples.

`sample_decoder` has the decoder of one sensor. It uses a module for each kind of message, and one for each check of
what the messages contain. `codecs` decodes compressed streams: MP3, Opus and video.
"""
