"""Satellite imagery from SQL."""
