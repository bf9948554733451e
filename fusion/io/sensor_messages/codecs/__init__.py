"""Decoders of compressed streams, whose messages need those before them: MP3, Opus and video."""
