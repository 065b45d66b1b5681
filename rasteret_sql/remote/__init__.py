"""Bytes from disks, web servers and clouds; the only importer of obstore."""
