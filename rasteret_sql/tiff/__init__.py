"""Bytes to header and block to array. No I/O."""
