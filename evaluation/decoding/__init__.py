"""Decoding the student with continuous batching: fixed slots, fixed memory, one stream a sample."""
